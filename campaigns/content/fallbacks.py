"""Fallback texts of merge fields: the ``default`` filters in a draft."""

import re
from collections import defaultdict

from campaigns.content.mjml.compiler import MessageDraft
from campaigns.content.mjml.merge_expressions import scan_expressions

_FIELD = re.compile(r"contact\.([a-z][a-z0-9_]{0,60})")
_DEFAULT = re.compile(r"""contact\.([a-z][a-z0-9_]{0,60})\s*\|\s*d(?:efault)?\(\s*(?:"([^"]*)"|'([^']*)')""")


def field_fallbacks(draft: MessageDraft) -> dict[str, list[str]]:
    """Return the fallback texts of each printed contact field ('' where there is none), keyed by field name.

    Fields that appear only in conditions are left out.
    """
    texts_by_field: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for text in (draft.subject, draft.preheader, draft.mjml):
        for expression in scan_expressions(text, "")[0]:
            if not expression.is_output:
                continue
            defaults = {key: double or single for key, double, single in _DEFAULT.findall(expression.source)}
            for key in _FIELD.findall(expression.source):
                texts_by_field[f"contact.{key}"].setdefault(defaults.get(key, ""))
    return {field: list(texts) for field, texts in texts_by_field.items()}
