"""Classification of a refusal: hard, soft or policy.

The enhanced status code decides (RFC 3463), then the three-digit reply code, then the text. An unclear refusal is
soft: an address that does not exist bounces again and reaches the soft bounce threshold.
"""

import re
from dataclasses import dataclass

from campaigns.delivery.bounces.models import FeedbackType

NONEXISTENT_CODES = frozenset({"5.1.1", "5.1.2", "5.1.6", "5.1.10"})
"""The address or its domain does not exist, so the address is suppressed."""
_ENHANCED_CODE = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")
_REPLY_CODE = re.compile(r"(?<![\d.])([45]\d\d)(?=[ \-#;:]|$)(?![\-.]\d{1,3}\.)")
_UNSPECIFIC = re.compile(r"5\.(\d{1,3}\.0|0\.\d{1,3})\Z")
_UNKNOWN_USER = re.compile(
    r"""(user|mailbox|recipient|address|account|alias|inbox)s?\b.{0,40}\b
            (unknown|not\ (be\ )?found|does\ ?n[o']t\ exist|not\ exist|invalid|unavailable\ or\ does
            |no\ longer\ (valid|exists)|doesn['’]t\ have|not\ listed|not\ known|rejected:\ (user|unknown))
      | no\ such\ (user|mailbox|recipient|address|person|account|local)
      | (unknown|invalid|unrouteable|nonexistent|non-existent)\ (local[- ]part|user|recipient|mailbox|address|account)
      | no\ mailbox\ (here|by)|recipientnotfound|unknown\ or\ illegal\ alias|doesn['’]t\ have\ an?\ \S+\ account
      | not\ our\ customer|is\ not\ a\ known\ user|user\ doesn['’]t\ exist
      | (empfänger|benutzer|adresse|postfach)\b.{0,40}(unbekannt|nicht\ (gefunden|vorhanden)|existiert\ nicht)
      | (utilisateur|destinataire|adresse|boîte)\b.{0,40}(inconnue?|introuvable|n['’]existe\ pas)
      | (usuario|destinatario|buz[oó]n|direcci[oó]n|cuenta)\b.{0,40}(desconocid[oa]|no\ existe|inexistente)
      | (utente|casella|indirizzo)\b.{0,40}(sconosciut[oa]|inesistente|non\ esiste)
      | (пользовател\w*|адрес\w*|получател\w*|ящик\w*)\b.{0,40}(не\ найден|не\ существует|неизвест\w*)
      | (такого|нет\ такого)\ (пользователя|адреса|ящика)
      | (ユーザー?|宛先|メールアドレス).{0,20}(存在しません|見つかりません|不明) | 用户不存在|收件人不存在|地址不存在
      | (کاربر|نشانی|صندوق).{0,30}(وجود\ ندارد|یافت\ نشد)""",
    re.I | re.X | re.S,
)
_MAILBOX_FULL = re.compile(
    r"(mailbox|quota|storage|account|inbox).{0,40}(full|exceeded|exceeds|over)|over ?quota|insufficient (disk|storage)"
    r"|out of storage|postfach.{0,30}voll|boîte.{0,30}pleine|переполнен|満杯|邮箱.{0,6}满|بیش از ظرفیت",
    re.I | re.S,
)
_POLICY = re.compile(
    r"spamhaus|barracuda|spamcop|sorbs|senderscore|proofpoint|black ?list|block ?list|deny ?list|dnsbl|\brbl\b"
    r"|(looks|detected|identified|considered|classified|rejected|likely).{0,25}\b(spam|unsolicited|bulk)\b"
    r"|spam (message|content)"
    r"|\bdmarc\b|\bspf\b.{0,20}(fail|check|error)|\bdkim\b|reputation|unsolicited"
    r"|policy (reason|violation)|against.{0,12}polic"
    r"|relay(ing)? (access )?denied|banned (sending|ip)|not authori[sz]ed to send|message.{0,20}content rejected|virus",
    re.I | re.S,
)
MAILBOX_DISABLED = "5.2.1"
"""Mailbox disabled: permanent when reported twice (see the ``effects.soft_bounces`` module)."""


@dataclass(frozen=True, slots=True)
class BounceClass:
    feedback_type: FeedbackType
    status: str = ""


def classify(status: str, diagnostic: str) -> BounceClass:
    """Classify a refusal.

    :param status: the Status field of a delivery report, or "".
    :param diagnostic: the remote server's reply text.
    """
    code = _status_code(status, diagnostic)
    text = diagnostic[:4000]
    if code.startswith("5.7."):
        return BounceClass(FeedbackType.POLICY, code)
    if _POLICY.search(text):  # Some servers reply 5.1.1 when they reject the sender.
        return BounceClass(FeedbackType.POLICY, code)
    if code in NONEXISTENT_CODES:
        return BounceClass(FeedbackType.HARD, code)
    if code.startswith("4.") or _MAILBOX_FULL.search(text):
        return BounceClass(FeedbackType.SOFT, code)
    if code and not _UNSPECIFIC.match(code):
        return BounceClass(FeedbackType.SOFT, code)
    reply = _REPLY_CODE.search(text)
    if reply is not None and reply[1].startswith("4"):
        return BounceClass(FeedbackType.SOFT, code)
    return BounceClass(FeedbackType.HARD if _UNKNOWN_USER.search(text) else FeedbackType.SOFT, code)


def _status_code(status: str, diagnostic: str) -> str:
    """Return the code of the diagnostic, else of the status field; an x.0 code only if there is no specific one."""
    codes = [".".join(match.groups()) for match in _ENHANCED_CODE.finditer(diagnostic[:2000]) if match[1] != "2"][:3]
    status_match = _ENHANCED_CODE.search(status[:40])
    if status_match is not None and status_match[1] != "2":
        codes.append(".".join(status_match.groups()))
    specific = [code for code in codes if not _UNSPECIFIC.match(code)]
    return (specific or codes or [""])[0]
