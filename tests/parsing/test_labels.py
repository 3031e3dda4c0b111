"""Answers in every dressing; names that must not be found; failures that must not become guesses."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recorded import recorded
from snellen.parsing import (
    ParseFailure,
    is_refusal,
    parse_label,
    parse_short,
    parse_yes_no,
    strip_thinking,
    tokens,
)
from snellen.types import Outcome

#: Written by somebody who had not seen the rules; none was changed for them.
UNSEEN = recorded("labels")
ANIMALS = ("cat", "dog", "car", "car tyre", "polar bear", "bear", "T-shirt", "jack-o'-lantern", "starfish")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("cat", "cat"),
        ("CAT", "cat"),
        ("  Cat.\n", "cat"),
        ("A cat!", "cat"),
        ("the cat", "cat"),
        ('"cat"', "cat"),
        ("“Cat”", "cat"),
        ("'cat'.", "cat"),
        ("`cat`", "cat"),
        ("**Cat**", "cat"),
        ("# Cat", "cat"),
        ("* cat", "cat"),
        ("1. cat", "cat"),
        ("{cat}", "cat"),
        ("\\boxed{cat}", "cat"),
        ("ｃａｔ", "cat"),
        ("cats", "cat"),
        ("two dogs", "dog"),
        ("cat's face", "cat"),
        ("polar-bear", "polar bear"),
        ("polar_bear", "polar bear"),
        ("Polar  Bears", "polar bear"),
        ("polarbear", "polar bear"),
        ("star fish", "starfish"),
        ("t shirt", "T-shirt"),
        ("tshirt", "T-shirt"),
        ("Jack o’ lantern", "jack-o'-lantern"),
        ("car tyre", "car tyre"),
        ("This is a car tyre.", "car tyre"),
        ("It's a cat", "cat"),
        ("The answer is cat.", "cat"),
        ("Answer: Cat", "cat"),
        ("**Answer:** cat", "cat"),
        ("The answer is: **cat**", "cat"),
        ("It could be a dog or a bear. Final answer: cat", "cat"),
        ("dog or cat?\nAnswer:\ncat", "cat"),
        ("<think>A dog? No, whiskers.</think>cat", "cat"),
        ("a dog perhaps</think> cat", "cat"),
        ("not a dog, a cat", "cat"),
        ("It is a cat, not a dog.", "cat"),
        ("It isn't a dog but a cat", "cat"),
        ("It is a cat rather than a dog", "cat"),
        ("Instead of a dog, I see a cat", "cat"),
        ("No doubt a cat.", "cat"),
        ("not only a cat", "cat"),
        ("It's not a dog. It's a cat.", "cat"),
        ("Dog: no. Cat: yes", "cat"),
        ("cat, a cat, certainly a cat", "cat"),
    ],
)
def test_a_name_is_found(text: str, label: str) -> None:
    assert parse_label(text, ANIMALS) == label


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("", Outcome.UNPARSED),
        ("   \n", Outcome.UNPARSED),
        ("scarf", Outcome.UNPARSED),
        ("caterpillar", Outcome.UNPARSED),
        ("a scarf and a caterpillar", Outcome.UNPARSED),
        ("education", Outcome.UNPARSED),
        ("cat or dog", Outcome.UNPARSED),
        ("a cat and a polar bear", Outcome.UNPARSED),
        ("The answer is cat or dog", Outcome.UNPARSED),
        ("Answer: cat. Answer: dog.", Outcome.UNPARSED),
        ("not a cat", Outcome.UNPARSED),
        ("This isn't a cat", Outcome.UNPARSED),
        ("There is no cat here.", Outcome.UNPARSED),
        ("The cat is not in the image", Outcome.UNPARSED),
        ("neither a cat nor a dog", Outcome.UNPARSED),
        ("This is not a cat, dog, or any animal", Outcome.UNPARSED),
        ("The answer is not a cat", Outcome.UNPARSED),
        ("cat: no", Outcome.UNPARSED),
        ("<think>it is a cat", Outcome.UNPARSED),
        ("I'm sorry, but I can't help with that.", Outcome.REFUSED),
        ("As an AI language model, I do not see images.", Outcome.REFUSED),
        ("I am unable to identify the object.", Outcome.REFUSED),
        ("Sorry, I cannot determine what it is", Outcome.REFUSED),
    ],
)
def test_no_name_is_no_guess(text: str, outcome: Outcome) -> None:
    failure = parse_label(text, ANIMALS)
    assert isinstance(failure, ParseFailure)
    assert failure.outcome is outcome
    assert failure.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is a car", Outcome.TRUNCATED),  # "tyre" may have been next
        ("It is a car ty", Outcome.TRUNCATED),
        ("It is a ca", Outcome.TRUNCATED),
        ("cat", Outcome.TRUNCATED),  # "caterpillar" may have been meant
        ("Let me think about wheth", Outcome.TRUNCATED),
        ("<think>It is a cat. It has", Outcome.TRUNCATED),
        ("", Outcome.TRUNCATED),
    ],
)
def test_what_was_cut_off_may_have_gone_on(text: str, expected: Outcome) -> None:
    found = parse_label(text, ANIMALS, truncated=True)
    assert isinstance(found, ParseFailure)
    assert found.outcome is expected


def test_what_was_cut_off_later_is_understood() -> None:
    assert parse_label("It is a cat. It has whis", ANIMALS, truncated=True) == "cat"
    assert parse_label("a car tyre on the roa", ANIMALS, truncated=True) == "car tyre"


def test_names_that_differ_in_punctuation_alone_are_found_as_written_or_not_at_all() -> None:
    languages = ("C", "C++", "C#")
    assert parse_label("C++", languages) == "C++"
    assert parse_label("c#", languages) == "C#"
    assert parse_label("I think it is C++ maybe", languages) == "C++"
    assert isinstance(parse_label("C+ maybe", languages), ParseFailure)


def test_a_glass_is_not_glasses() -> None:
    assert parse_label("glass", ("glasses", "cup")).__class__ is ParseFailure
    assert parse_label("glasses", ("glasses", "glass")) == "glasses"
    assert parse_label("glass", ("glasses", "glass")) == "glass"
    assert parse_label("people", ("person", "dog")) == "person"
    assert parse_label("scissor", ("scissors", "dog")) == "scissors"


def test_synonyms() -> None:
    synonyms = {"cat": ("feline", "house cat"), "dog": ("hound",)}
    assert parse_label("a feline", ("cat", "dog"), synonyms) == "cat"
    assert parse_label("house-cats", ("cat", "dog"), synonyms) == "cat"
    # A name of its own beats a synonym of another.
    assert parse_label("hound", ("dog", "hound"), {"dog": ("hound",)}) == "hound"
    # A synonym of two classes names neither.
    both = {"cat": ("pet",), "dog": ("pet",)}
    assert isinstance(parse_label("a pet", ("cat", "dog"), both), ParseFailure)


def test_names_in_any_script() -> None:
    labels = ("猫", "熊猫", "собака", "café", "İstanbul", "naïve art", "हाथी")
    for label in labels:
        assert parse_label(f" {label}. ", labels) == label
    assert parse_label("🦊", (*labels, "🦊")) == "🦊"
    assert parse_label("हा", ("ह", "क")).__class__ is ParseFailure
    assert parse_label("熊猫", ("猫", "犬")).__class__ is ParseFailure
    assert parse_label("CAFÉ", labels) == "café"
    assert parse_label("cafe\u0301", labels) == "café"


WORD = st.text(string.ascii_lowercase, min_size=3, max_size=8)
NAME = st.lists(WORD, min_size=1, max_size=3).map(" ".join)
#: Words that mean something to the parser, and so may not be names here.
RESERVED = set(
    (
        "the not nor neither never without except excluding unlike but however although though answer "
        "final rather than instead other opposed think thinking thought reasoning scratchpad boxed true "
        "false yes sorry unable cannot "
    ).split()
)


def names(minimum: int = 2) -> st.SearchStrategy[list[str]]:
    found = st.lists(NAME, min_size=minimum, max_size=6, unique=True)
    return found.filter(lambda ns: not any(set(n.split()) & RESERVED for n in ns))


DRESSINGS = (
    "{}",
    "{}.",
    "**{}**",
    '"{}"',
    "A {}.",
    "The answer is {}.",
    "Answer: {}",
    "<think>hmm</think>\n{}",
    "`{}`\n",
    "({})",
    "It's the {}!",
    "- {}",
)


@given(names(), st.sampled_from(DRESSINGS), st.sampled_from([str, str.upper, str.title]), st.data())
def test_every_name_survives_every_dressing(labels, dressing, case, data) -> None:
    label = data.draw(st.sampled_from(labels))
    joiner = data.draw(st.sampled_from([" ", "-", "_"]))
    squeezed = [name.replace(" ", "") for name in labels]
    assume(len(set(squeezed)) == len(squeezed))
    text = dressing.format(case(label).replace(" ", joiner))
    assert parse_label(text, labels) == label


@given(names(), st.text(max_size=60), st.booleans())
def test_whatever_comes_out_is_a_label_or_a_failure(labels, text, truncated) -> None:
    found = parse_label(text, labels, truncated=truncated)
    assert found in labels or isinstance(found, ParseFailure)
    if isinstance(found, ParseFailure):
        assert found.outcome is not Outcome.OK
        assert not found


@given(names(1), WORD, st.booleans())
def test_a_name_within_a_word_is_not_named(labels, letters, before) -> None:
    label = labels[0]
    text = letters + label if before else label + letters
    assume(all(set(tokens(text)).isdisjoint(tokens(name)) for name in labels))
    forms = {"".join(tokens(name)) for name in labels}
    assume("".join(tokens(text)) not in forms)
    found = parse_label(text, labels)
    # Grammatical number is the one addition that is allowed.
    number = {label + "s", label + "es", *(n[:-1] for n in labels)}
    assert isinstance(found, ParseFailure) or text in number


@given(names(2))
def test_two_names_are_a_failure(labels) -> None:
    one, other = labels[:2]
    assume(not set(one.split()) & set(other.split()))
    found = parse_label(f"{one}, or {other}", labels)
    others = [name for name in labels if name not in (one, other)]
    assert isinstance(found, ParseFailure) or found in others


@given(names(2))
def test_negation_turns_the_answer_round(labels) -> None:
    one, other = labels[:2]
    assume(not set(one.split()) & set(other.split()))
    assume("".join(tokens(f"not {one}")) not in {"".join(tokens(n)) for n in labels})
    assert isinstance(parse_label(f"not {one}", [one, other]), ParseFailure)
    assert parse_label(f"not {one}; {other}", [one, other]) == other


@given(st.text(max_size=80))
def test_thinking_is_stripped_once_and_for_all(text) -> None:
    once = strip_thinking(text)
    assert len(once) <= len(text)
    assert "cat" not in strip_thinking(f"<think>{text.replace('<', '')} cat")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("yes", True),
        ("Yes.", True),
        ("YES!", True),
        ("**Yes**", True),
        ("Yes, there is a cat.", True),
        ("yes there is no doubt", True),
        ("Yeah", True),
        ("y", True),
        ("True", True),
        ("The answer is yes", True),
        ("Answer: Yes", True),
        ("yes or no? Yes", True),
        ("<think>no, wait</think> yes", True),
        ("no", False),
        ("No.", False),
        ("No, it is a dog.", False),
        ("No there isn't", False),
        ("nope", False),
        ("N", False),
        ("The answer is no.", False),
        ("Is the cat in this image? No.", False),
        ("**No**\n\nIt is a dog.", False),
    ],
)
def test_yes_and_no(text: str, answer: bool) -> None:
    assert parse_yes_no(text) is answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "maybe",
        "yes or no",
        "yes/no",
        "Yes and no.",
        "Yes. No.",
        "No!\nYes!",
        "I have no idea",
        "No idea",
        "There is no way to tell",
        "note",
        "nothing",
        "yesterday",
        "know",
    ],
)
def test_neither_yes_nor_no(text: str) -> None:
    found = parse_yes_no(text)
    assert isinstance(found, ParseFailure)
    assert found.outcome is Outcome.UNPARSED


def test_yes_no_refused_and_cut_off() -> None:
    refusal, cut = parse_yes_no("I'm sorry, I can't tell."), parse_yes_no("Well, y", truncated=True)
    assert isinstance(refusal, ParseFailure)
    assert refusal.outcome is Outcome.REFUSED
    assert isinstance(cut, ParseFailure)
    assert cut.outcome is Outcome.TRUNCATED
    assert parse_yes_no("Yes, the image sho", truncated=True) is True


@given(st.text(max_size=60), st.booleans())
def test_yes_no_never_raises(text, truncated) -> None:
    assert parse_yes_no(text, truncated=truncated) in (True, False) or isinstance(
        parse_yes_no(text, truncated=truncated), ParseFailure
    )


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        # Compounds, written together or apart.
        ("The object in this photo is a light house.", ("lighthouse", "house"), "lighthouse"),
        ("A sea horse in a tank", ("seahorse", "horse"), "seahorse"),
        ("a fire truck on the road", ("firetruck", "truck"), "firetruck"),
        ("I see an ice-cream", ("icecream", "cream"), "icecream"),
        ("An AK-47 rifle.", ("ak47", "dog"), "ak47"),
        ("It is a bread maker machine", ("breadmaker", "dog"), "breadmaker"),
        ("two cellphones", ("cell phone", "dog"), "cell phone"),
        ("teddybears", ("teddy bear", "bear"), "teddy bear"),
        ("cat-like robot", ("cat", "dog"), None),
        ("a hot-dog", ("cat", "dog"), None),
        ("a sea-lion", ("lion", "tiger"), None),
        ("a bird-cage", ("bird", "cat"), None),
        # Abbreviations.
        ("Answer: St. Bernard", ("St. Bernard", "beagle"), "St. Bernard"),
        ("a St. Bernard dog", ("st bernard", "beagle"), "st bernard"),
        ("T. rex", ("t rex", "dog"), "t rex"),
        # What is marked as the answer is all that counts.
        ("There is a dog behind, but the main object is a wolf.\nAnswer: wolf", ("cat", "dog"), None),
        ("It has fur like a cat. Answer: I don't know", ("cat", "dog"), None),
        ("The correct option is cat. The dog is blurry.", ("cat", "dog"), "cat"),
        ("The answer to the question is a cat, I think. No dog.", ("cat", "dog"), "cat"),
        ("cat? dog? <answer>dog</answer>", ("cat", "dog"), "dog"),
        ("◁think▷cat?◁/think▷dog", ("cat", "dog"), "dog"),
        # Negation.
        ("It's hardly a cat", ("cat", "dog"), None),
        ("It lacks a cat", ("cat", "dog"), None),
        ("This could be mistaken for a dog", ("cat", "dog"), None),
        ("not a bear although it looks like a bear", ("bear", "dog"), None),
        ("none other than a dog", ("cat", "dog"), "dog"),
        ("glasses", ("glass", "cup"), None),
    ],
)
def test_answers_as_models_give_them(text, labels, expected) -> None:
    found = parse_label(text, labels)
    assert (found if isinstance(found, str) else None) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is not yes", None),
        ("The answer is not no", None),
        ("yes, no", None),
        ("no, yes", None),
        ("No, but yes", None),
        ("Yes No", None),
        ("Yes, no doubt about it", True),
        ("The answer to the question is no.", False),
        ("<answer>no</answer>", False),
        ("Unfortunately, no.", False),
        ("Actually, yes.", True),
        ("I would say yes.", True),
        ("No because it is a dog", False),
    ],
)
def test_yes_and_no_as_models_give_them(text, expected) -> None:
    found = parse_yes_no(text)
    assert (found if isinstance(found, bool) else None) == expected


def test_yes_and_no_cut_off() -> None:
    assert parse_yes_no("Yes", truncated=True) is True
    assert parse_yes_no("No", truncated=True) is False
    assert isinstance(parse_yes_no("No dou", truncated=True), ParseFailure)
    assert parse_yes_no("No, it do", truncated=True) is False


@pytest.mark.parametrize("text", ["answer: cat ", "cat ", "not cat, cat, ", "yes ", "no, "])
def test_an_answer_that_goes_round_and_round_is_read_in_no_time(text) -> None:
    """Quadratic work on 20,000 characters would take minutes (the suite's time-out sees that)."""
    for repeats in (20_000 // len(text), 10**6 // len(text)):
        parse_label(text * repeats, ("cat", "dog"))
        parse_yes_no(text * repeats)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The image does not show a cat, a dog, or a horse.", None),
        ("There is no cat, dog, or bird in the picture.", None),
        ("The image does not contain a cat, dog, or horse. It contains a ship.", "ship"),
        ("The picture fails to show a dog", None),
        ("Anything but a dog", None),
        ("the cat is clearly not in the picture", None),
        ("Dog? Not at all.", None),
        ("The animal isnt a dog", None),
        ("The answer to what this is: a dog", "dog"),
    ],
)
def test_denials_of_many_sorts(text, label):
    found = parse_label(text, ("cat", "dog", "horse", "bird", "ship"))
    assert (None if isinstance(found, ParseFailure) else found) == label


@pytest.mark.parametrize(("open_", "close"), [("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>")])
def test_tags_of_other_families(open_, close):
    assert parse_label(f"{open_}A cat? No.{close} A dog.", ("cat", "dog")) == "dog"


@pytest.mark.parametrize("text", ["cat, fish", "Cat. Fish.", "cat and fish"])
def test_names_apart_are_no_name_run_together(text):
    assert isinstance(parse_label(text, ("cat", "fish", "catfish")), ParseFailure)
    assert parse_label("cat fish", ("cat", "fish", "catfish")) == "catfish"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer to this question is 7.", "7"),
        ("The answer for this chart is 42%", "42%"),
        ('The answer is "red".', "red"),
        ("The answer is 'red'.", "red"),
        ('Answer: "STOP"', "STOP"),
        ('The final answer is **"42"**.', "42"),
        ("**red**.", "red"),
        ("The answer is \u201cred\u201d.", "red"),
        ('{"answer": 7}', "7"),
        ('{"answer": "red"}', "red"),
        ("The answer isn't given", "The answer isn't given"),
        ("We are sorry for the delay", "We are sorry for the delay"),
    ],
)
def test_short_answers_in_any_dressing(text, answer):
    assert parse_short(text) == answer


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ('A shop window with a sign that reads "We\'re sorry, we are closed".', False),
        ("In this photo we cannot see the man's face, only his back.", False),
        ("I'm sorry, but I can't help with that.", True),
        ("Unfortunately, we cannot identify it.", True),
        ("Based on the image, I cannot determine it.", True),
    ],
)
def test_who_refuses(text, refused):
    assert is_refusal(text) is refused


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("这是一只猫。", ("猫", "狗"), "猫"),
        ("图中是北极熊。", ("熊", "北极熊"), "北极熊"),
        ("这是熊猫", ("猫", "狗"), None),
        ("这是熊猫", ("猫", "熊猫"), "熊猫"),
        ("这不是猫，而是狗。", ("猫", "狗"), "狗"),
        ("これは犬です。", ("犬", "猫"), "犬"),
        ("猫ではなく犬です", ("犬", "猫"), "犬"),
        ("ネコザメです", ("ネコ", "犬"), None),
        ("ネコザメです", ("ネコ", "ネコザメ"), "ネコザメ"),
        ("นี่คือแมว", ("แมว", "หมา"), "แมว"),
        ("ไม่ใช่แมว แต่เป็นหมา", ("แมว", "หมา"), "หมา"),
        ("고양이입니다.", ("고양이", "개"), "고양이"),
        ("이것은 고양이가 아니라 개입니다", ("고양이", "개"), "개"),
        ("개구리입니다", ("고양이", "개"), None),
        ("إنها القطة.", ("قطة", "كلب"), "قطة"),
        ("والكلب هنا", ("القطة", "الكلب"), "الكلب"),
        ("ليست قطة بل كلب", ("قطة", "كلب"), "كلب"),
        ("Das ist kein Hund, sondern eine Katze.", ("Hund", "Katze"), "Katze"),
        ("Bu bir köpek değil, kedi.", ("köpek", "kedi"), "kedi"),
    ],
)
def test_scripts_without_spaces_and_with_particles(
    text: str, labels: tuple[str, ...], label: str | None
) -> None:
    found = parse_label(text, labels)
    assert (found if isinstance(found, str) else None) == label


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("The value is -5.", ("-5", "5"), "-5"),
        ("The value is 5.", ("-5", "5"), "5"),
        ("between 4-5", ("-5", "5"), None),
        ("grade A-", ("A", "A+", "A-"), "A-"),
        ("grade A.", ("A", "A+", "A-"), "A"),
        ("about 50", ("50%", "50"), "50"),
        ("It is a letter B", ("A", "B"), "B"),
        ("This is the letter A.", ("A", "B"), "A"),
        ("I think it is B", ("I", "B"), "B"),
        ("A is shown", ("A", "B"), "A"),
        ("It is a crane or a dog", ("crane, bird", "crane, machine", "dog"), None),
        ("a tench", ("tench, Tinca tinca", "goldfish"), "tench, Tinca tinca"),
    ],
)
def test_signs_articles_and_listed_names(text: str, labels: tuple[str, ...], label: str | None) -> None:
    found = parse_label(text, labels)
    assert (found if isinstance(found, str) else None) == label


def test_unseen_answers() -> None:
    wrong, read = [], 0
    for answer in UNSEEN:
        found = parse_label(answer["text"], answer["labels"])
        said = found if isinstance(found, str) else None
        read += said == answer["read"] is not None
        if said is not None and said != answer["read"]:
            wrong.append((answer["text"], said))
    assert wrong == []
    assert read >= 64  # of 66
