"""Letters out of free text, and short answers: what is read, what is not, and what must never be guessed."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snellen.parsing import ParseFailure, is_refusal, parse_choice, parse_choices, parse_short
from snellen.parsing.choices import LETTERS
from snellen.types import Outcome

ANIMALS = ("cat", "dog", "bird", "fish")

#: All of them say B, which is a dog.
SAY_B = r"""
B | b | (b) | (B) | [B] | {B} | "B" | **B** | `B` | B. | B) | B: | $B$ | **(B)** | - B | #### B | B。
\boxed{B} | \boxed B | $\boxed{\text{B}}$ | \(B\) | $\text{B}$ | \boxed{\textbf{B}}
Answer: B | answer: b | Answer: **B** | Answer: B. dog | **Answer:** B | The answer is B
The answer is B. | the answer is (b).
The correct answer is (B) dog. | The correct option is **B. dog**. | Final answer: B) dog
The best answer is B: dog
The final answer is $\boxed{B}$. | The correct answer is \boxed{B}. | Option B | option (B)
Option B is correct.
B. dog | B: dog | B) dog | (B) dog | B - dog | B, because it barks | B because it barks | B.dog
B is correct. | So B.
B is the correct answer. | The answer is definitely B. | The answer is likely B
The answer is B rather than A.
The answer is not (A) but (B). | not A but B | It cannot be (A), so it must be (B) | I think it's B.
I'd go with B.
Therefore, the answer is (B). | It's a dog, so the answer is B.
So the correct answer is option B: dog.
The answer is B because A is a cat. | I cannot see it clearly, but the answer is B. | 答案：B | 答案是B
选B
<think>A or C?</think>B | <|begin_of_box|>B<|end_of_box|> | B</s> | B<|im_end|> | ASSISTANT: B
<answer>B</answer>
The answer is A. No wait, the answer is B. | The answer is A. I made a mistake; it should be B.
dog | Dog. | A dog | The dog | It is a dog. | It is not a cat but a dog. | **a dog** | Answer: a dog
"""
#: None of them says which.
SAY_NOTHING = r"""
A or B | A, B | (A) and (B) | Both A and B | none of the above | E | The answer is E. | I | hm | Z
A animal is shown
B. cat | The answer is A. The answer is B. | cat or dog
Option A is incorrect. | Option A seems wrong. | Option A can be ruled out.
We can eliminate option A. | eliminate (A)
(A) is incorrect. | **A** is wrong | Rule out **A**. | The wrong answer is A.
The incorrect option is A | All but B.
The least correct answer is (A). | The only wrong one is B. | I don't think the answer is A. | not B
It is not (B).
If it had wings, it would be C. | Point (A) lies on the line. | In panel (B) we see nothing.
It is neither A nor B.
"""


def cases(block: str) -> list[str]:
    return [case.strip() for line in block.strip().splitlines() for case in line.split(" | ")]


@pytest.mark.parametrize(
    "text", [*cases(SAY_B), "Answer:\nB", "Answer: A\n\nCorrection: B", "### Answer\nB", "\ufeffB", "B\n"]
)
def test_letters_in_every_dressing(text):
    assert parse_choice(text, ANIMALS) == 1


@pytest.mark.parametrize("text", [*cases(SAY_NOTHING), "", "  ", "A. cat\nB. dog\nC. bird\nD. fish", "B\nA"])
def test_nothing_is_guessed(text):
    found = parse_choice(text, ANIMALS)
    assert isinstance(found, ParseFailure)
    assert found.outcome is Outcome.UNPARSED


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("B) dog\n\nBecause no cat is there, option A is wrong.", 1),
        ("B.\nThe cat (A) is not there.", 1),
        ("There are no wings, so not C.\nFins are missing too.\nAnswer: B", 1),
        (
            "Let's see: A is a cat, B is a dog. It barks.\n\n"
            "Final Answer: The final answer is $\\boxed{B}$. I hope so.",
            1,
        ),
        ("We cannot directly see the tail. Still, it barks.\nAnswer: B", 1),
    ],
)
def test_explanations_change_nothing(text, place):
    assert parse_choice(text, ANIMALS) == place


@pytest.mark.parametrize(
    ("text", "options", "place"),
    [
        ("E. coli", ("E. coli", "b", "c", "d", "e"), 0),
        ("C. elegans", ("E. coli", "C. elegans", "D. rerio"), 1),
        ("D, E", ("D, E", "A, B", "x", "y", "z"), 0),
        ("A.M.", ("P.M.", "A.M."), 1),
        ("Cannot be determined", ("left", "right", "Cannot be determined"), 2),
        ("C. Cannot be determined", ("left", "right", "Cannot be determined"), 2),
        ("It is 5.", ("5", "6"), 0),
        ("-3", ("3", "-3"), 1),
        ("c", ("c", "D", "b", "a"), 2),  # a letter is a letter, whatever the options are called
    ],
)
def test_options_that_look_like_letters_and_numbers(text, options, place):
    assert parse_choice(text, options) == place


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("-3", ("3", "5")),
        ("3", ("-3", "5")),
        ("5.5", ("5", "6")),
        ("1,000", ("1", "2")),
        ("10^2", ("10", "100")),
        ("No, A", ("Yes", "No")),
        ("dog", ("dog", "dog", "cat")),
    ],
)
def test_what_only_looks_like_an_option(text, options):
    assert isinstance(parse_choice(text, options), ParseFailure)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("A", (0,)),
        ("A, C", (0, 2)),
        ("C, A", (0, 2)),
        ("AC", (0, 2)),
        ("A and C", (0, 2)),
        ("(A) (C)", (0, 2)),
        ("A, C and D.", (0, 2, 3)),
        ("both A and B", (0, 1)),
        ("Answers: A, C", (0, 2)),
        ("The answers are A and C.", (0, 2)),
        ("A. cat\nC. bird", (0, 2)),
        ("A\n(B) is wrong", (0,)),
        ("dog", (1,)),
    ],
)
def test_several_letters(text, places):
    assert parse_choices(text, ANIMALS) == places


@pytest.mark.parametrize("text", ["A, E", "ABC is", "CAB", "A, C. Not B.", ""])
def test_several_letters_that_are_none(text):
    assert isinstance(parse_choices(text, ANIMALS), ParseFailure)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("B", Outcome.TRUNCATED),
        ("The answer is B", Outcome.TRUNCATED),
        ("Let us see. The", Outcome.TRUNCATED),
    ],
)
def test_what_was_cut_off_may_have_gone_on(text, outcome):
    assert parse_choice(text, ANIMALS, truncated=True).outcome is outcome
    assert parse_choice("B. dog\nIt ba", ANIMALS, truncated=True) == 1
    assert parse_choice("The answer is B. It ba", ANIMALS, truncated=True) == 1


def test_refusals_are_told():
    assert parse_choice("I'm sorry, I can't help with that.", ANIMALS).outcome is Outcome.REFUSED


TEXT = st.text(alphabet=st.sampled_from("ABCDEabcd .,:;()[]*\"'\n-isorntheanswerbut"), max_size=60)


@given(TEXT, st.booleans(), st.booleans())
def test_what_is_read_stands_in_the_text(text, several, truncated):
    """Whatever is written: a place among the options, whose letter or text the answer holds, or a failure."""
    read = parse_choices if several else parse_choice
    found = read(text, ANIMALS, truncated=truncated)
    if isinstance(found, ParseFailure):
        assert found.outcome is not Outcome.OK
        return
    for place in found if isinstance(found, tuple) else (found,):
        assert 0 <= place < 4
        assert LETTERS[place] in text.upper() or ANIMALS[place] in text.lower()


@given(
    st.sampled_from(range(4)),
    st.sampled_from(["{}", "({})", "**{}**", "Answer: {}", "The answer is {}.", "{}. "]),
)
def test_the_letter_of_the_place_and_no_other(place, dressing):
    assert parse_choice(dressing.format(LETTERS[place]), ANIMALS) == place


@pytest.mark.parametrize(
    "text",
    [
        "A " * 18 + "\nx",
        "A B " * 8 + "c",
        "A, B, C, D, " * 4 + "and then a fish",
        "A " * 9999,
        "(A) " * 4999,
        "is A " * 3999,
        "option A, " * 1999,
        "not but " * 2400,
        "answer is " * 1900,
        "\\boxed{" * 2800,
        "A\n" * 9999,
        "*" * 20000,
        "I cannot " * 2200,
    ],
)
def test_no_answer_takes_long_to_read(text):
    began = time.perf_counter()
    for read in (parse_choice, parse_choices):
        read(text, ANIMALS)
    parse_short(text)
    assert (
        time.perf_counter() - began < 5
    )  # thousands of times what is usual: nothing grows beyond all bounds


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7", "7"),
        (" a red car. ", "a red car."),
        ("The answer is 7.", "7"),
        ("So 3 + 4 = 7. The answer is: **7**.", "7"),
        ("**Final Answer**: \\boxed{12}", "12"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\text{red}}", "red"),
        ("$5", "$5"),
        ("$5$", "5"),
        ('"red"', "red"),
        ("can't tell", "can't tell"),
        ("<think>hm</think> red", "red"),
        ("Answer: yes\nAnswer: yes", "yes"),
    ],
)
def test_short_answers(text, answer):
    assert parse_short(text) == answer


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("", Outcome.UNPARSED),
        ("The answer is 3. No: the answer is 4.", Outcome.UNPARSED),
        ("I'm sorry, I can't help with that.", Outcome.REFUSED),
        ("x" * 3000, Outcome.UNPARSED),
    ],
)
def test_no_short_answer(text, outcome):
    assert parse_short(text).outcome is outcome


@pytest.mark.parametrize(
    "text",
    ["Its tail cannot be seen in this view.", "A sign that will not help anyone.", "Cannot be determined"],
)
def test_what_speaks_of_others_declines_nothing(text):
    assert not is_refusal(text)


COLORS = ("red", "blue", "green", "yellow")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("A. red B. blue C. green D. yellow", None),
        ("A. red or B. blue", None),
        ("A. red? No. B. blue", None),
        ("A. red is not the answer, B. blue is.", None),
        ("A. red is incorrect.", None),
        ("A: incorrect", None),
        ("A. red. The image shows a red car, not a blue one.", "red"),
        ("A. red because B. blue is wrong", "red"),
        ("The answer is B, not A", "blue"),
        ("(B), not (A)", "blue"),
        ("Choose D", "yellow"),
        ("Of course: C", "green"),
        ("B?", "blue"),
        ("答案：B。因为是", "blue"),
        ("正确的选项是C", "green"),
        ("The answer to this question is C.", "green"),
        ('The answer is "blue".', "blue"),
        ("It is not red, green, or yellow.", None),
    ],
)
def test_what_else_models_write(text, chosen):
    found = parse_choice(text, COLORS)
    assert (None if isinstance(found, ParseFailure) else COLORS[found]) == chosen


@pytest.mark.parametrize("text", ["A. red, C. green", "(A) red and (C) green", "A. red; C. green"])
def test_letters_with_their_texts_where_several_may_be_right(text):
    assert parse_choices(text, COLORS) == (0, 2)


@pytest.mark.parametrize("text", ["B. A", "(B) A", "The answer is B. A"])
def test_options_that_are_letters(text):
    assert parse_choice(text, ("B", "A", "D", "C")) == 1


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("There is no one in the room.", None),
        ("The room has no furniture.", None),
        ("Yes, there is no one in the room.", 0),
        ("Yes, because there's no cat", 0),
        ("No.", 1),
        ("A. Yes", 0),
    ],
)
def test_no_is_not_always_an_answer(text, chosen):
    found = parse_choice(text, ("Yes", "No"))
    assert (None if isinstance(found, ParseFailure) else found) == chosen


def test_what_was_cut_off_had_not_been_answered():
    text = (
        "To find the color, let us describe the image. In the foreground there is a red car, and above it the"
    )
    found = parse_choice(text, COLORS, truncated=True)
    assert isinstance(found, ParseFailure)
    assert found.outcome is Outcome.TRUNCATED
    assert parse_choice("It is red. The reason is that the", COLORS, truncated=True) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A and C are correct", (0, 2)),
        ("a, c", (0, 2)),
        ("A, B and D are correct, but C is not.", (0, 1, 3)),
        ("I would select A and C.", (0, 2)),
        ("cat and bird", (0, 2)),
        ("正确答案是A和C", (0, 2)),
        ("La respuesta es A y C", (0, 2)),
        ('{"answer": ["A", "C"]}', (0, 2)),
        ("A and C are wrong.", None),
        ("A and C are correct, and so may be B", None),
        ("Neither A nor C.", None),
        ("a cat and a dog", (0, 1)),
    ],
)
def test_lists_of_letters(text, expected):
    found = parse_choices(text, ANIMALS)
    assert (found if isinstance(found, tuple) else None) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{\frac{1}{3}}", 1),
        (r"$\dfrac{1}{3}$", 1),
        ("The answer is 1/3.", 1),
        (r"The final answer is $\boxed{\frac13}$.", 1),
        (r"$\frac{3}{1}$", None),
    ],
)
def test_formulas_in_any_spelling(text, expected):
    found = parse_choice(text, (r"$\frac{1}{2}$", r"$\frac{1}{3}$", r"$\frac{2}{3}$"))
    assert (found if isinstance(found, int) else None) == expected


def test_options_with_the_same_text_are_told_apart_by_letter():
    assert parse_choice("B. cat", ("cat", "cat", "dog")) == 1
    assert parse_choice("A", ("cat", "cat", "dog")) == 0
    assert isinstance(parse_choice("cat", ("cat", "cat", "dog")), ParseFailure)
