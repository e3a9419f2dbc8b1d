"""What a plain (unquoted) YAML scalar means: the YAML 1.2 core schema, narrowed where it would surprise.

'1e-3' is a float and 'no', 'on', 'yes', '12:30', '2024-01-01' are strings. Narrower than the core schema: '0777', '0o17' and
'0x41' stay strings (a number that reads otherwise than it looks is a trap), as do integers of more than forty digits.
"""

from __future__ import annotations

import math
import re
from typing import Any

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,39})")
_WHOLE = r"(?:0|[1-9][0-9]*)"
_FLOAT = re.compile(rf"[-+]?(?:(?:\.[0-9]+|{_WHOLE}\.[0-9]*)(?:[eE][-+]?[0-9]+)?|{_WHOLE}[eE][-+]?[0-9]+)")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}


def parse_scalar(text: str) -> Any:
    """The value of a plain scalar: None, bool, int, float or, for everything else, the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def format_scalar(value: Any) -> str:
    """The shortest text that `parse_scalar` reads back as `value`; lists in brackets. Text is quoted where it must be."""
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(format_scalar(item) for item in value) + "]"
    if isinstance(value, str):
        bare = bool(value) and parse_scalar(value) is value and not set(value) & set("[],=\"'")
        return value if bare else repr(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)
