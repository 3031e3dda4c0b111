"""Find the letter that an answer states, by an ordered table of rules: the first one that finds one decides.

Every rule looks for a form in which letters are given in answers, whatever the question; what the options
say is left to :mod:`snellen.parsing.choices`. All patterns are bounded, so that time is linear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from snellen.parsing.lexicon import any_of

__all__ = ["RULES", "Place", "stated"]

#: A letter, and where it stands.
Place = tuple[str, int]

#: A capital on its own; letters of other scripts may touch it ("正解はDです").
_LETTER = (
    r"(?<![A-Za-z0-9_'’$\\^À-ɏḀ-ỿ])(?P<letter>[A-Z])(?![A-Za-z0-9_$^À-ɏḀ-ỿ]|['’](?![dt][ıiuü]r|y[ıiuü]\b))"
)
_OPEN = r"[\s(\[{<\"'*_`「『【（“‘:：=—–>→-]{0,8}"
_CLOSE = r"[)\]}>\"'*_`」』】）”’]{0,6}"
_ANY_CASE = _LETTER.replace("[A-Z]", "[A-Za-z]")
#: Where a letter may stand; a small one, only as a value or within a tag.
_CANDIDATE = re.compile(rf"{_LETTER}|(?<=[\"'>])\s?[a-z](?=\s?[\"'<])")
#: What ends a letter's clause, or follows it in languages with postpositions; no second letter.
_ENDS = (
    rf"{_CLOSE}(?!\s{{0,4}}[,/&+]\s{{0,4}}\(?[A-Z]\b)"
    r"\s{0,4}(?:[.,;!。，、।\n]|$|\((?![A-Z]\))|です|だ|입니다|이다|となり|だと思|라고|번|项|項|है|şıkkı|seçeneği|['’][dt][ıiuü]r)"
)


def stated(text: str, letters: str) -> tuple[Place, str] | None:
    """Return the letter that an answer states with the position after it, and the rule that found it; None if
    no rule finds exactly one of the letters.

    >>> stated('Look. {"selected_option": "B"}', "ABCD"), stated("Die Antwort lautet C.", "ABCD")
    ((('B', 28), 'json'), (('C', 20), 'marker'))
    >>> stated("Between B and D, D fits better.", "ABCD"), stated("A or B", "ABCD")
    ((('D', 18), 'verdict'), None)
    """
    text = _LOWER.sub(lambda match: match[0].upper(), text)
    for name, rule in RULES.items():
        places = list(rule(text))
        if len({letter for letter, _ in places}) > 1 or any(letter not in letters for letter, _ in places):
            return None
        if places:
            _, end = places[-1]
            recanted = _RECANTS.search(text, end)
            return None if recanted and _ALONE.search(text, recanted.end()) else (places[-1], name)
    return None


#: "(a)" and "b)": a small letter with a parenthesis is an option's.
_LOWER = re.compile(
    r"(?<![\w(])\(?[a-j]\)(?=[\s.,;:!*]|$)|(?<=[:：]\s)[a-j](?=[.\s*]{0,4}$)"
    r"|(?i:(?<=\bletra\s)|(?<=\bopción\s)|(?<=\bopção\s)|(?<=\blettre\s)|(?<=\bbuchstabe\s))[a-j](?![\w'’])"
)
#: What takes back the answer before it, if another letter follows.
_RECANTS = re.compile(any_of("recants"))


def _rule(pattern: str, *, against: bool = True) -> Callable[[str], Iterator[Place]]:
    """Return a rule that finds every match of a pattern that nothing before it negates or supposes, unless
    the pattern itself contains a negation.
    """
    compiled = re.compile(pattern)

    def find(text: str) -> Iterator[Place]:
        for match in _near_letters(compiled, text):
            before, within = text[max(0, match.start() - 80) : match.start()], _within(match)
            # "A es incorrecta, B es correcta" is two clauses.
            wrong = match[0][0] not in ".,;:!\n。" and _CALLS_WRONG.search(before)
            refused = (
                wrong or _AGAINST.search(before) or _AGAINST.search(within) or _CALLS_WRONG.search(within)
            )
            if not against or not refused:
                yield match["letter"].upper(), match.end("letter")

    return find


#: How far before and behind a letter a rule looks for its form.
_BEFORE, _BEHIND = 160, 240
#: Of a text with more letters, so many at its beginning and at its end are looked at.
_FIRST, _LAST = 40, 120


def _near_letters(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the matches of a pattern near letters, as if nothing else had been searched."""
    done = 0
    for start, end in _windows(text):
        stop = min(len(text), end + _BEHIND)
        for match in pattern.finditer(text, max(done, start), stop):
            # "$" also matches where the search stops.
            if match.end() < stop or stop == len(text):
                yield match
        done = end


@lru_cache(maxsize=8)
def _windows(text: str) -> list[tuple[int, int]]:
    """Return the stretches of a text around its letters."""
    places = [match.start() for match in _CANDIDATE.finditer(text)]
    if len(places) > _FIRST + _LAST:
        places = places[:_FIRST] + places[-_LAST:]
    windows: list[tuple[int, int]] = []
    for place in places:
        start, end = max(0, place - _BEFORE), min(len(text), place + 2)
        if windows and start <= windows[-1][1]:
            windows[-1] = (windows[-1][0], end)
        else:
            windows.append((start, end))
    return windows


def _only_letter(pattern: str) -> Callable[[str], Iterator[Place]]:
    """Return a rule like :func:`_rule` for texts in which no other letter stands on its own."""
    rule = _rule(pattern)

    def find(text: str) -> Iterator[Place]:
        for letter, end in rule(text):
            if {match["letter"] for match in _ALONE.finditer(text)} == {letter}:
                yield letter, end

    return find


def _within(match: re.Match[str]) -> str:
    """Return what a match has before its letter, but for the "not" of a correction."""
    return re.sub(
        r"^(?i:not\s[^.!?\n]{1,20}\sbut|but|not\s[^,]*,)",
        "",
        match.string[match.start() : match.start("letter")],
    )


_NEGATES = any_of("negates")
_WRONG = any_of("wrong")
#: What turns a statement round, in the same clause before it.
_AGAINST = re.compile(
    r"(?i:\b(?:not|never|cannot|if|whether|unless|thought|initially|least|worst|except|wrong|incorrect|unlikely"
    r"|hardly|far\sfrom|anything\sbut|doubt(?!\s*,)|disagree|mistake|tempted|might\sthink|could\sthink|some\swould"
    r"|user\sthinks|example)\b|n['’]t\b)"
    r"[^.!?,;\n]{0,60}$"
    r"|\b[Ii]f\b(?!\s(?:I|we)\s(?:had|have|were|must)\b)[^.!?\n]{0,60}$"
    rf"|{_NEGATES}[^.!?,;。।\n]{{0,24}}$"
)
_CALLS_WRONG = re.compile(rf"{_WRONG}[^.!?,;。\n]{{0,60}}$|오$")
#: A capital that is no word: "A man", "I see", "E la risposta".
_ALONE = re.compile(_LETTER.replace("[A-Z]", r"[B-DF-HJ-NP-Z]|[AEIO](?!\s+[a-zà-ÿ])"))
#: A line with nothing but a letter, and a line of a list with a check mark.
_LINE = re.compile(rf"{_OPEN}{_LETTER}{_CLOSE}[.。,;]?\s{{0,4}}{_CLOSE}")
_CHECKED = re.compile(rf"{_OPEN}{_LETTER}[^\n]{{0,200}}[✓✔✅☑]")


def _last_line(text: str) -> Iterator[Place]:
    """Reasoning, and then a last line that is only a letter; no other such line, but in a list of options."""
    lines = [line for line in re.finditer(r"[^\n]+", text) if line[0].strip(" `*_\r\t")]
    matches = [(_LINE.fullmatch(line[0]), line.start()) for line in lines]
    if matches and matches[-1][0] is not None:
        yield from ((match["letter"], at + match.end("letter")) for match, at in matches if match is not None)


def _checked(text: str) -> Iterator[Place]:
    """``B. dog ✓``, where the other options have no check mark."""
    for line in re.finditer(r"[^\n]+", text):
        if (match := _CHECKED.match(line[0])) is not None:
            yield match["letter"], line.start() + match.end("letter")


_VERDICTS = re.compile(
    r"(?i:[-*|\s]{0,6}\(?(?P<letter>[A-Z])\)?[.):*|\s][^\n]{0,200}?(?<!\w)(?:(?P<yes>yes|correct|true|right|ja|sí|oui|sim)"
    r"|no|not\s\w{1,12}|incorrect|false|wrong|nein|non|não)\b(?:\W{0,6}|[,;.:]\s[^\n]{0,200}))"
    r"|\s{0,4}(?:(?P<tick>[○✓✔✅◯])|[×✗✘❌✖])\s{0,3}(?P<ticked>[A-Z])\W{0,4}"
)


_ORDINAL = re.compile(
    r"(?i)\bthe\s(?P<nth>first|second|third|fourth|fifth)\s(?:option|choice|answer|one)\sis\s(?:clearly\s)?"
    r"(?:the\s)?(?:right|correct|best|answer)\b"
)


def _ordinal(text: str) -> Iterator[Place]:
    """``The third option is the right one.``"""
    for match in _ORDINAL.finditer(text[-2_000:]):
        place = ("first", "second", "third", "fourth", "fifth").index(match["nth"].lower())
        yield "ABCDE"[place], len(text)


def _verdicts(text: str) -> Iterator[Place]:
    """``A: incorrect``, ``B: correct``: one verdict on each option, and one of them in favor."""
    lines = [line for line in re.finditer(r"[^\n]+", text) if line[0].strip()]
    matches = [(_VERDICTS.fullmatch(line[0]), line.start()) for line in lines]
    found = [(match, at) for match, at in matches if match is not None]
    favored = [
        (match[name].upper(), at + match.end(name))
        for match, at in found
        for name in ("letter", "ticked")
        if match[name] and (match["yes"] or match["tick"])
    ]
    # A table may have a heading and a rule.
    if len(found) > 1 and len(lines) - len(found) <= 2 and len(favored) == 1:
        yield from favored


_KEYS = (
    r"(?!\w{0,20}(?:wrong|incorrect|reject|distract))"
    r"\w{0,20}(?:answer|option|choice|letter|prediction|response|selected|selection)\w{0,20}"
)
_NOUNS = (
    r"(?:(?i:\b(?:answer|ans|response|prediction|selection|conclusion|verdict|output|result|choice|pick)\b)"
    rf"|{any_of('answer')})"
)
_FOREIGN_OPTION = any_of("option")
_OPTION = rf"(?:(?i:la\s|a\s|the\s)?(?:(?i:option|choice|letter|answer)|{_FOREIGN_OPTION}))"
_BEST = (
    r"(?:correct|right|better|best|(?:the|my)\s+(?:\w{1,12}\s)?(?:correct|right|best|answer|choice|pick)\b"
    r"|the\s+one\s+that\b|true\b)"
)
_FITS = r"(?:fits|matches|describes|answers|suits|is\s+supported|works|corresponds)"
_CHOOSES = any_of("chooses")
#: Who chooses or thinks, behind the letter.
_CHOSEN = (
    r"(?:\s(?:wählen|nehmen|entscheiden|चुन)|['’]?(?:y[ıiuü]|[ıiuü])?\s(?:seçer|seçiyor|tercih)|を(?:選|えら)(?!び?ません|ばない)"
    r"|だと(?:思|考え)|[을를]\s?(?:선택|고르)|라고\s?생각(?!했)|번(?:입니다|이다|$))"
)
#: "Not A but B", with the negation before or behind the letter that is not meant.
_NOT_A_BUT = (
    rf"(?:{_NEGATES}[^.!?。\n]{{0,12}}?[A-Z](?![A-Za-z])[^.!?。\nA-Z]{{0,6}}(?:,\s)?{any_of('but')}"
    r"|[A-Z](?:\s?(?:değil|ではな[くい]|じゃな[くい]|नहीं|[가이]\s?아니[라고])[,、\s]{0,3}(?:बल्कि)?))"
)
_RIGHT = any_of("right")

#: The rules in their order, by name.
RULES: dict[str, Callable[[str], Iterator[Place]]] = {
    "json": _rule(rf"[\"'](?i:{_KEYS})[\"']\s{{0,4}}:\s{{0,4}}[\"']?\(?{_ANY_CASE}\)?[\"']?\s{{0,4}}[,}}\n]"),
    "json value": _rule(
        rf"[\"'](?!\w{{0,20}}(?:wrong|incorrect|reject|distract|question|not))\w{{1,20}}[\"']\s{{0,4}}:\s{{0,4}}[\"']\(?{_ANY_CASE}\)?[\"']\s{{0,4}}[,}}\n]"
    ),
    "boxed": _rule(rf"\\boxed\s?\{{{_OPEN}{_LETTER}{_CLOSE}[\s.,:}}]"),
    "tag": _rule(rf"<\w{{1,20}}>{_OPEN}{_ANY_CASE}{_CLOSE}\.?\s{{0,4}}</"),
    "correction": _rule(
        rf"\b(?:(?i:but|so|not\s[^.!?\n]{{1,20}},)\s(?:it\sis|it['’]s)(?:\sactually)?|(?i:it['’]s|it\sis|is)\sactually|(?i:not)\s[^.!?\n]{{1,20}}\sbut)\s"
        rf"(?:{_OPTION}\s)?{_OPEN}{_LETTER}{_ENDS}"
    ),
    "foreign correction": _rule(
        rf"{_NOT_A_BUT}[^.!?。\nA-Z]{{0,16}}{_LETTER}(?:[がをは]|{_ENDS})", against=False
    ),
    "last line": _last_line,
    "check mark": _checked,
    "verdicts": _verdicts,
    "marker": _rule(
        rf"{_NOUNS}[^\n.。,;!?A-Z(]{{0,40}}{_OPEN}(?:{_OPTION}\s{{1,3}})?{_OPEN}{_LETTER}{_ENDS}"
    ),
    "verdict": _rule(
        rf"(?:^|[\n.,;:!]\s{{0,4}}|(?i:\b(?:only|but|thus|so|hence|therefore|that\s(?:is\swhy|makes)|makes|making|{_OPTION}))\s)"
        rf"\(?{_LETTER}\)?\s{{1,3}}(?:(?:clearly|definitely|therefore)\s)?"
        rf"(?:(?:is|would\sbe|must\sbe)\s{{1,3}}(?:clearly\s|definitely\s)?{_BEST}|{_BEST}|(?:best\s)?{_FITS}"
        rf"|(?:seems|looks|appears)\s(?:to\sbe\s)?{_BEST}|that\s{_FITS})(?![^.\n]{{0,20}}\?)"
    ),
    "question": _rule(
        rf"\?\s(?i:no)[.,;]\s(?:{_OPTION}\s)?{_OPEN}{_LETTER}{_CLOSE}\s(?:is|does)\s{{0,2}}[.!]"
    ),
    "foreign verdict": _rule(
        rf"(?:^|[\n.,;:!。]\s{{0,4}}|{_OPTION}\s?|\b(?i:(?:c['’]est|è|es|é)\s(?:la|a))\s|\b(?i:(?:daher|also|somit|folglich)\sist)\s)\(?{_LETTER}\)?"
        rf"(?:\s{{1,3}}(?:est|es|ist|é|è|là|adalah|şıkkı|seçeneği|[—–-]|qui|que|che|(?=doğru|benar|đúng|die\srichtige|die\skorrekte))"
        rf"|\s{{0,2}}(?=[^\x00-\u024f]))"
        rf"(?![^\n.。!?]{{0,40}}{_NEGATES})[^\n.。!?A-Z]{{0,24}}?{_RIGHT}"
    ),
    "foreign right": _rule(
        rf"{_RIGHT}[^\n.。,;!?A-Z(]{{0,40}}(?:{_OPTION}[^\n.。,;!?A-Z(]{{0,8}})?"
        rf"{_OPEN}{_LETTER}{_ENDS}"
    ),
    "chosen": _rule(
        rf"{_CHOOSES}\s{{0,3}}(?:(?:la|a|die|с)\s)?(?:{_OPTION}\s{{0,3}})?{_OPEN}{_LETTER}{_ENDS}"
    ),
    "chosen behind": _rule(rf"{_LETTER}{_CHOSEN}"),
    "remaining": _rule(
        rf"{any_of('remains')}[^\n.。!?A-Z]{{0,24}}{_LETTER}(?!\s?(?:or|and|und|oder|et|ou|y|o|e|и|или)\b)"
    ),
    "it is": _rule(rf"\b(?i:so|then|thus),?\s{_LETTER}\sit\sis\b"),
    "option alone": _rule(
        rf"^{_OPEN}(?:(?i:es|é|è|c['’]est|это|es\sist|đó\slà|itu)\s)?{_OPTION}['’\s]{{0,2}}{_OPEN}{_LETTER}{_CLOSE}[.。।]?\s{{0,8}}$"
    ),
    "option behind": _rule(rf"^{_OPEN}{_LETTER}{_CLOSE}\s(?:seçeneği|şıkkı)(?:dır|dir)?[.]?\s{{0,8}}$"),
    "others rejected": _rule(
        rf"^{_OPEN}{_LETTER}{_CLOSE}[.;,]\s{{1,3}}(?:{_OPTION}\s)?\(?[A-Z]\)?\s(?:is|was)\s(?:\w{{1,20}}ly\s)?"
        rf"(?:wrong|incorrect|not|false)\b"
    ),
    "last sentence": _rule(rf"[a-z]{{2}}[)\"']{{0,2}}[.!]\s{{1,4}}{_OPEN}{_LETTER}{_CLOSE}[.!]?\s{{0,8}}$"),
    # "Clearly B", "es B", "yani B" at the very end: behind a copula, or a word of certainty or conclusion.
    "copula": _only_letter(
        rf"(?:{any_of('closes')}|{_FOREIGN_OPTION})[,،、]?\s{{0,3}}(?:{_OPTION}\s{{0,3}})?{_OPEN}{_LETTER}{_CLOSE}"
        r"(?:\s?(?:seçeneği|şıkkı|选项|번|です|だ|입니다|है|['’][dt][ıiuü]r))?[.。।!]?\s{0,8}$"
    ),
    "ordinal": _ordinal,
    "closing": _rule(
        rf"(?i:\b(?:only|say|think|choose|pick|select|selecting|go with|guess|likely|finally|leaves|leaving"
        rf"|has to be|should\sbe|it['’]s|it\sis|so|thus|hence|therefore))"
        rf",?\s{{1,3}}(?:{_OPTION}\s{{1,3}})?{_OPEN}{_LETTER}{_CLOSE}\s{{0,4}}[.!]?\s{{0,8}}$"
    ),
}
