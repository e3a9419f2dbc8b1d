"""Text as pdflatex shows it: every special character escaped, every other that it does not know named by its code point.

What is made here needs no package and no encoding: accents are TeX's own commands, so that OT1 and T1 both have them. Ligatures
are broken, and what a command before it would take for its argument (`[`, `*` at the start of a row) stands in braces.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from attnprof.report.text import clean

_LONG = 24  # characters of a word that fit on a line's end
_STEP = 16  # characters between places to break a longer one at
_LIGATURE = re.compile(r"(?<=([-',?!]))(?=\1|`)")
_FIRST = ("[", "*")

_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "`": r"\textasciigrave{}",
    "…": r"\ldots{}",
    "\u2013": r"\textendash{}",
    "\u2014": r"\textemdash{}",
    "\u2018": "`{}",
    "\u2019": "'{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "§": r"\S{}",
    "©": r"\copyright{}",
    "±": r"$\pm$",
    "\u00d7": r"$\times$",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "•": r"$\bullet$",
    "°": r"$^\circ$",
    "µ": r"$\mu$",
    "\u2212": r"$-$",
    "←": r"$\leftarrow$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "↔": r"$\leftrightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "∑": r"$\sum$",
    "√": r"$\surd$",
    "⊙": r"$\odot$",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "\u0131": r"\i{}",
    **{char: rf"$^{digit}$" for digit, char in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{char: rf"$_{digit}$" for digit, char in enumerate("₀₁₂₃₄₅₆₇₈₉")},
}
_ACCENTS = {
    "\u0300": r"\`",
    "\u0301": r"\'",
    "\u0302": r"\^",
    "\u0303": r"\~",
    "\u0304": r"\=",
    "\u0306": r"\u",
    "\u0307": r"\.",
    "\u0308": r"\"",
    "\u030a": r"\r",
    "\u030b": r"\H",
    "\u030c": r"\v",
    "\u0327": r"\c",
}
_DOTLESS = {"i": r"\i", "j": r"\j"}
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (\w+)$")
_LIKE_LATIN = {  # capitals that TeX has no command for
    "ALPHA": "A",
    "BETA": "B",
    "EPSILON": "E",
    "ZETA": "Z",
    "ETA": "H",
    "IOTA": "I",
    "KAPPA": "K",
    "MU": "M",
    "NU": "N",
    "OMICRON": "O",
    "RHO": "P",
    "TAU": "T",
    "CHI": "X",
}


def escape(text: str) -> str:
    """`text` on one line, in TeX's own characters."""
    plain = unicodedata.normalize("NFC", clean(text))
    parts = ("".join(map(_character, part)) for part in _LIGATURE.split(plain)[::2])
    return ("{}" if plain.startswith(_FIRST) else "") + "{}".join(parts)


def breakable(text: str) -> str:
    """The same, with places where a line may end in long words: after what is no letter or digit, and where there is none."""
    return " ".join(escape(word) if width(word) <= _LONG else _divided(word) for word in clean(text).split(" "))


@lru_cache(maxsize=8192)
def width(text: str) -> int:
    """How many digits wide the escaped text is, about."""
    return sum(6 if r"\textsf" in _character(char) else 1 for char in unicodedata.normalize("NFC", text))


def _divided(word: str) -> str:
    pieces = [""]
    for char in word:
        if width(pieces[-1] + char) > _STEP or not pieces[-1][-1:].isalnum():
            pieces.append("")
        pieces[-1] += char
    return r"\allowbreak{}".join(map(escape, filter(None, pieces)))


def slug(text: str) -> str:
    """`text` as part of a \\label: lower-case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "report"


def comment(text: str) -> str:
    """`text` as one line of comment, ready to be taken out of it."""
    return f"% {escape(text)}"


def _character(char: str) -> str:
    if char in _CHARACTERS:
        return _CHARACTERS[char]
    if char.isascii():
        return char
    return _greek(char) or _accented(char) or rf"\textsf{{U+{ord(char):04X}}}"


def _greek(char: str) -> str:
    """α -> $\\alpha$; '' for what is no Greek letter."""
    found = _GREEK.match(unicodedata.name(char, ""))
    if found is None:
        return ""
    size, name = found[1], {"LAMDA": "LAMBDA", "FINAL": ""}.get(found[2], found[2])
    if size == "CAPITAL":
        return _LIKE_LATIN.get(name, rf"$\{name.capitalize()}$" if name else "")
    return "o" if name == "OMICRON" else rf"$\{name.lower()}$" if name else ""


def _accented(char: str) -> str:
    """é -> \\'{e}; '' for what is no Latin letter with one accent that TeX knows."""
    base, *marks = list(unicodedata.normalize("NFD", char))
    if len(marks) != 1 or marks[0] not in _ACCENTS or not (base.isascii() and base.isalpha()):
        return ""
    return f"{_ACCENTS[marks[0]]}{{{_DOTLESS.get(base, base)}}}"
