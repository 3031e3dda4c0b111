"""What an answer denies, takes back or supposes is not its answer."""

from __future__ import annotations

import pytest

from snellen.metrics.answers import exact_match, number_match
from snellen.parsing.choices import parse_choice
from snellen.parsing.labels import parse_label
from snellen.parsing.short import parse_short
from snellen.parsing.text import ParseFailure
from snellen.parsing.yes_no import parse_yes_no

PETS = ["cat", "dog", "bird", "horse"]
ANIMALS = ["a dog", "a cat", "a bird", "a fish"]


def cases(block: str) -> list[str]:
    return [case.strip() for line in block.strip().splitlines() for case in line.split(" | ")]


@pytest.mark.parametrize(
    "text",
    cases("""
dog is ruled out | I rule out dog. | dog has been eliminated. | We can exclude dog.
I eliminated dog.
dog ❌ | ❌ dog
It's unlikely to be a dog. | I doubt it is a dog. | The wrong answer is dog
The least likely class is dog. | ~~dog~~
dog not present | dog: absent | dog: ✗ | - [ ] dog | dog (incorrect) | dog: none | dog absent
dog? nope
dog: not present
It looks like a dog, but it's not. | I thought it was a dog, but it isn't.
dog is the wrong answer.
dog seems wrong
Aucun dog. | Nessun dog. | ohne dog | Здесь нет dog. | Dog yok. | The dog option can be ruled out.
far from a dog
It would be a dog if it had a tail. | If it were a dog, it would bark. | Is it a dog?
It is unclear whether this is a dog.
"""),
)
def test_a_class_that_is_denied(text):
    assert isinstance(parse_label(text, PETS), ParseFailure)


@pytest.mark.parametrize(
    "text",
    cases(
        """
No doubt it's a dog. | There is little doubt that it is a dog. | It is a dog, not a cat.
cat ❌, dog
dog ✓
Is it a dog? Yes, it is. | If I had to guess, dog. | Not a cat but a dog. | Respuesta: dog (no cat)
The cat is ruled out, so it is a dog. | It can not be a cat. It must be a dog. | A dog is present.
none other than a dog
""".replace("\\n", "\n")
    ),
)
def test_a_class_that_is_affirmed(text):
    assert parse_label(text, PETS) == "dog"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A non-venomous python.", "python"),
        ("Zero-sugar Pepsi", "Pepsi"),
        ("C'est sans doute un chat.", "chat"),
        ("Es sin duda un gato", "gato"),
        ("Das ist ohne Zweifel eine Katze.", "Katze"),
        ("The cat is missing its tail.", "cat"),
        ("The cat is unlikely to be a wild one.", "cat"),
        ("The dog is excluded from the house", "dog"),
        ("Petunia × atkinsiana", "Petunia"),
        ("Cat: none of the others fit.", "cat"),
        ("Is it a cat? Most likely.", "cat"),
        ("If I had to choose I would say cat", "cat"),
        ("It looks as if it is a cat.", "cat"),
        ("Absent: not present in the picture", "absent"),
        ("The dog looks wrong side up, but is visible.", "dog"),
        ("Beyond doubt this is a cat.", "cat"),
        ("You may think dog but the correct answer is cat.", "cat"),
    ],
)
def test_words_of_denial_that_deny_something_else(text, label):
    assert parse_label(text, [label, "nothing of it"]) == label


def test_a_list_with_boxes():
    assert parse_label("- [ ] cat\n- [x] dog\n- [ ] bird", PETS) == "dog"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Non è un gatto.", ["gatto", "cane"]),
        ("이것은 고양이가 아닙니다.", ["고양이", "개"]),
        ("Dit is geen kat.", ["kat", "hond"]),
        ("To nie jest kot.", ["kot", "pies"]),
        ("Det är inte en katt.", ["katt", "hund"]),
        ("Pneumonia ruled out.", ["pneumonia", "normal"]),
        ("negative for pneumonia", ["pneumonia", "normal"]),
        ("free of pneumonia", ["pneumonia", "normal"]),
        ("There is no way to tell.", ["yes", "no"]),
        ("I have no idea", ["yes", "no"]),
        ("The answer would be cat if it had whiskers.", ["cat", "dog"]),
    ],
)
def test_denials_of_other_languages_and_fields(text, labels):
    assert isinstance(parse_label(text, labels), ParseFailure)


@pytest.mark.parametrize(
    ("text", "label"), [("There is no tumor", "no"), ("Yes, a tumor.", "yes"), ("No.", "no")]
)
def test_yes_and_no_as_classes(text, label):
    assert parse_label(text, ["yes", "no"]) == label


@pytest.mark.parametrize(
    "text",
    [
        *cases("""
Answer: A. Hmm, no: B | The answer is A. No, sorry, B.
The answer is A. I made a mistake; it should be B.
The answer is A. No wait, the answer is B. | The answer is A. Hold on. It's B.
A es incorrecta, B es correcta. | A ist falsch, B ist richtig. | A неверно, B верно. | A错误，B正确
"""),
        "Answer: A\n\nSorry, I meant B.",
        "Answer: A\n\nHowever, looking more closely, it is B.",
        "Answer: A\n\nCorrection: B",
        "The answer is A.\n\nHmm, let me reconsider. The answer is B.",
        "A\n\nEdit: B",
    ],
)
def test_the_letter_after_a_correction(text):
    assert parse_choice(text, ANIMALS) == 1


@pytest.mark.parametrize(
    "text",
    cases("""
La respuesta incorrecta es B. | Die falsche Antwort ist B. | 错误答案是B | 오답은 B입니다 | 誤答はBです
Неправильный ответ: B
不选B | 不能选B | 我不选B | Bは正解ではありません | الخيار B غير صحيح | Bを選びません | I doubt it is B.
"""),
)
def test_a_letter_that_is_denied(text):
    assert isinstance(parse_choice(text, ANIMALS), ParseFailure)


def test_a_letter_at_the_end_of_an_options_text():
    options = ["neither; the samples have the same temperature", "sample A", "sample B"]
    assert parse_choice("The answer is sample A.", options) == 1
    assert parse_choice("Answer: sample B", options) == 2
    assert parse_choice("The answer is A.", options) == 0
    assert parse_choice("The answer is point A.", ["Point C", "Point A", "Point D"]) == 1


@pytest.mark.parametrize(
    ("text", "question", "said"),
    [
        ("The cat is left of the dog.", "Is the dog left of the cat?", None),
        ("The dog is left of the cat.", "Is the dog left of the cat?", True),
        ("The dog is chasing the cat.", "Is the cat chasing the dog?", None),
        ("The blue ball is above the red box.", "Is the red ball above the blue box?", None),
        ("There is a dog under the table.", "Is there a dog on the table?", None),
        ("There is a dog on the table.", "Is there a dog on the table?", True),
        ("There is a dog in the image.", "Is there a dog in the picture?", True),
        ("There is a cat rather than a dog.", "Is there a dog?", None),
        ("I see neither a dog nor a cat.", "Is there a dog?", None),
        ("I see zero dogs.", "Is there a dog?", False),
        ("There is a lack of dogs.", "Is there a dog?", False),
        ("There is a fire hydrant.", "Is there a fire?", None),
        ("There is a bus stop in the image.", "Is there a bus in the image?", None),
        ("There is a bus near the stop.", "Is there a bus in the image?", True),
        ("There is a brown dog running.", "Is there a dog?", True),
        ("There is a red umbrella held by a woman.", "Is there an umbrella?", True),
        ("I see something that may be a dog.", "Is there a dog?", None),
        ("There is a cat that resembles a dog.", "Is there a dog?", None),
        ("I couldn't find a dog.", "Is there a dog?", False),
        ("Yes. Wait, no.", "Is there a dog?", False),
        ("No. Wait, yes, there is a dog.", "Is there a dog?", True),
        ("Answer: yes\n\nCorrection: no", "Is there a dog?", False),
        ("Yes?", "Is there a dog?", None),
    ],
)
def test_statements(text, question, said):
    found = parse_yes_no(text, question=question)
    assert (None if isinstance(found, ParseFailure) else found) is said


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [
        ("negative 5", "-5", 1), ("negative 5", "5", 0), ("minus five", "-5", 1), ("forty five", "45", 1),
        ("forty five", "5", 0), ("two thousand", "2000", 1), ("two thousand", "2", 0),
        ("3.5 million", "3500000", 1),
        ("3.5M", "3500000", 1), ("There are twenty-one birds.", "21", 1),
        ("There are twenty-one birds.", "20", 0),
        ("at least 12", "12", 0), ("up to 12", "12", 0), ("There are 12 birds.", "12", 1),
        ("one hundred", "100", 1),
        ("It is 3 metres long.", "3", 1),
    ],
)  # fmt: skip
def test_a_number_is_not_cut_from_another(text, reference, right):
    found = parse_short(text, numeric=True)
    assert isinstance(found, str)
    assert number_match(found, [reference]) == right


@pytest.mark.parametrize(
    "text", ["Yes, the car is red.", "Yes, this is a kitchen.", "Yes, there is a dog in the picture.", "Yes"]
)
def test_yes_before_a_sentence_is_the_answer(text):
    found = parse_short(text)
    assert isinstance(found, str)
    assert exact_match(found, ["yes"]) == 1


@pytest.mark.parametrize(
    "text",
    cases("""
Not London but Paris. | London? No, Paris. | London. Wait, no, Paris. | Paris, not London.
Paris and not London
Probably Paris. | Most likely Paris | Paris, I think. | Paris because the tower is visible.
> Paris | # Paris
Es ist Paris. | C'est Paris. | È Paris. | Это Paris. | 这是Paris。 | これはParisです。
이것은 Paris입니다.
The picture depicts Paris. | Maybe Paris
"""),
)
def test_an_answer_with_its_contrast_or_its_doubt(text):
    found = parse_short(text)
    assert isinstance(found, str)
    assert exact_match(found, ["Paris"]) == 1


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("2e3", "2000", 1), ("2×10^3", "2000", 1), (r"2 \times 10^{3}", "2000", 1), ("2·10³", "2000", 1),
        ("10^3", "1000", 1), ("1e-3", "0.001", 1), ("2e3", "23", 0), ("1990s", "1990", 0), ("x2", "x²", 0),
        ("x^2", "x²", 1), ("5 m²", "5 m2", 1),
    ],
)  # fmt: skip
def test_powers(answer, reference, right):
    assert exact_match(answer, [reference]) == right


def test_a_bound_and_a_model_keep_their_signs():
    assert (parse_short("> 5"), parse_short("ES 350")) == ("> 5", "ES 350")
