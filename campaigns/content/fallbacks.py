"""Fallback texts of merge fields: the ``default`` filters in a draft."""

import re
from collections import defaultdict

from campaigns.content.mjml.compiler import MessageDraft
from campaigns.content.mjml.merge_expressions import scan

_FIELD = re.compile(r"contact\.([a-z][a-z0-9_]{0,60})")
_DEFAULT = re.compile(r"""contact\.([a-z][a-z0-9_]{0,60})\s*\|\s*d(?:efault)?\(\s*(?:"([^"]*)"|'([^']*)')""")


def fallbacks(draft: MessageDraft) -> dict[str, list[str]]:
    """Return the fallback texts of each printed contact field ('' where there is none), keyed by field name.

    Fields that appear only in conditions are left out.
    """
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for text in (draft.subject, draft.preheader, draft.mjml):
        for expression in scan(text, "")[0]:
            if not expression.is_output:
                continue
            said = {key: double or single for key, double, single in _DEFAULT.findall(expression.source)}
            for key in _FIELD.findall(expression.source):
                found[f"contact.{key}"].setdefault(said.get(key, ""))
    return {field: list(texts) for field, texts in found.items()}
