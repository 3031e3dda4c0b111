"""The arena's pure parts, against brute force and other packages: pairs, leaks, style, ranking, quality."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from random import Random
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import beta, kendalltau

from snellen.arena.davidson import PRIOR, fit
from snellen.arena.leaks import leak
from snellen.arena.pairing import BOOST, draw, propensities
from snellen.arena.quality import agreement, assess, preferred_wrong
from snellen.arena.rating import rank
from snellen.arena.style import difference, features, styled
from snellen.arena.vote_counts import VoteCounts
from snellen.storage.vote_rows import CastVote, Verdict

NAMES = ["A", "B", "C", "D", "E"]


class TestPairs:
    @given(st.integers(2, 6), st.data())
    def test_chances_sum_to_one_and_none_is_zero(self, count, data):
        players = [f"m{i}" for i in range(count)]
        pairs = [frozenset(p) for p in itertools.combinations(players, 2)]
        met = {pair: data.draw(st.integers(0, 500)) for pair in pairs}
        chances = propensities(players, met)
        assert set(chances) == set(pairs)
        assert sum(chances.values()) == pytest.approx(1)
        assert min(chances.values()) > 0

    def test_those_who_met_less_meet_next(self):
        met = {frozenset("AB"): 9, frozenset("AC"): 0, frozenset("BC"): 0}
        chances = propensities(["A", "B", "C"], met)
        assert chances[frozenset("AC")] == chances[frozenset("BC")] > chances[frozenset("AB")]

    def test_a_new_model_is_preferred_within_bounds(self):
        old = ["A", "B", "C"]
        met = {frozenset(p): 1000 for p in itertools.combinations(old, 2)}
        chances = propensities([*old, "new"], met)
        with_new = chances[frozenset(("A", "new"))] / chances[frozenset("AB")]
        # 1/(0+1) against 1/1001 by counts, times the boost, which is capped
        assert with_new == pytest.approx(1001 * BOOST)

    def test_equal_counts_are_equally_likely(self):
        chances = propensities(NAMES, {frozenset(p): 7 for p in itertools.combinations(NAMES, 2)})
        assert len({round(c, 12) for c in chances.values()}) == 1

    def test_drawn_as_often_as_it_says_and_on_both_sides(self):
        met = {frozenset("AB"): 3, frozenset("AC"): 1, frozenset("BC"): 0}
        chances = propensities(["A", "B", "C"], met)
        rng = Random(0)
        seen: Counter[Any] = Counter()
        sides: Counter[Any] = Counter()
        for _ in range(6000):
            one = draw(["A", "B", "C"], met, rng)
            seen[frozenset((one.left, one.right))] += 1
            sides[one.left < one.right] += 1
            assert one.propensity == pytest.approx(chances[frozenset((one.left, one.right))])
        for pair, chance in chances.items():
            assert seen[pair] / 6000 == pytest.approx(chance, abs=0.03)
        assert sides[True] / 6000 == pytest.approx(0.5, abs=0.03)

    def test_pairs_without_anything_left(self):
        gone = {frozenset("AB"), frozenset("AC")}
        for _ in range(20):
            one = draw(["A", "B", "C"], {}, Random(1), gone)
            assert {one.left, one.right} == {"B", "C"}
            assert one.propensity == 1
        assert draw(["A", "B"], {}, Random(1), {frozenset("AB")}) is None

    @pytest.mark.parametrize("players", [[], ["A"], ["A", "A"]])
    def test_too_few(self, players):
        with pytest.raises(ValueError, match="two players"):
            propensities(players, {})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I am GPT-4, a large language model.", "GPT-4"),
        ("I'm Claude.", "Claude"),
        ("As Gemini, I cannot see images.", "Gemini"),
        ("My name is the Qwen assistant", "Qwen"),
        ("I was developed by OpenAI.", "OpenAI"),
        ("I am a model trained by Mistral", "Mistral"),
        ("qwen2-vl sees a cat", "qwen2-vl"),
        ("A llama stands on a meadow.", ""),
        ("This is a llama.", ""),
        ("As a next step, I would look closer.", ""),
        ("The car was made by Apple.", ""),
        ("I see a phi and a sigma.", ""),
        ("I'm going through this step by step.", ""),
        ("I am in Florence.", ""),
        ("I am at your command.", ""),
        ("This laptop model was made by Apple.", ""),
        ("I am Nova.", "Nova"),
        ("I am looking at a phone made by Apple.", ""),
        ("I'm seeing a laptop that was designed by Apple.", ""),
        ("I'm sorry, the bag is made by Meta.", ""),
        ("I'm not a person but an AI model, developed by Mistral AI.", "Mistral"),
        ("I was designed and trained by Google.", "Google"),
        ("I am an AI assistant called Qwen2-VL", "Qwen2-VL"),
        ("As an AI developed by Google, I cannot tell who that is.", "Google"),
        ("As a large language model trained by OpenAI, I see a dog.", "OpenAI"),
        ("As a vision assistant from Alibaba Cloud, I see a dog.", "Alibaba"),
        ("This assistant was created by Anthropic.", "Anthropic"),
        ("This AI was developed by Google DeepMind.", "Google"),
        ("The assistant you are talking to is Claude.", "Claude"),
        ("You are talking to Gemini.", "Gemini"),
        ("I am called Qwen.", "Qwen"),
        ("The badge says I am Claude.", ""),
        ('The sign reads: "I am Gemini."', ""),
        ("Her shirt has the words I am Grok on it.", ""),
        ("“I'm Claude”, says the man in the comic.", ""),
        ("The text in the image states that it was created by OpenAI.", ""),
        ("The badge says hello. I am Claude, an AI assistant.", "Claude"),
        ("This painting was made by Claude.", ""),
        ("This chair was created by Apple.", ""),
        ("As seen in the logo by Google, it is colorful.", ""),
        ("Ich bin Claude, ein Assistent von Anthropic.", "Claude"),
        ("Ich wurde von OpenAI entwickelt.", "OpenAI"),
        ("Als KI, die von Google entwickelt wurde, sehe ich keine Gesichter.", "Google"),
        ("Je suis Mistral, un modèle de langue.", "Mistral"),
        ("J'ai été créé par Anthropic.", "Anthropic"),
        ("Soy Gemini, un modelo de lenguaje.", "Gemini"),
        ("Fui desarrollado por OpenAI.", "OpenAI"),
        ("Sou o Gemini, um modelo do Google.", "Gemini"),
        ("Sono Claude, un assistente.", "Claude"),
        ("Sono stato sviluppato da Google.", "Google"),
        ("Ik ben Claude.", "Claude"),
        ("Я — Claude, созданный Anthropic.", "Claude"),
        ("Я ChatGPT, модель OpenAI.", "ChatGPT"),
        ("我是通义千问，由阿里云开发。", "通义千问"),
        ("我是由OpenAI开发的人工智能助手。", "OpenAI"),
        ("私はGeminiです。", "Gemini"),
        ("私はGoogleによって開発されました。", "Google"),
        ("저는 Claude입니다.", "Claude"),
        ("أنا Claude، مساعد من Anthropic.", "Claude"),
        ("मैं Gemini हूँ।", "Gemini"),
        ("Ben Claude.", "Claude"),
        ("Das Schild sagt: Ich bin Claude.", ""),
        ("Ben is a man, Claude is his dog.", ""),
        ("Soy un gato en un tejado.", ""),
        ("", ""),
    ],
)
def test_leaks(text, found):
    assert leak(text, ["hf:Qwen/Qwen2-VL-7B-Instruct", "pico:llava"]) == found


@given(st.text())
def test_style_of_anything(text):
    assert all(value >= 0 for value in features(text))
    assert difference(text, text) == (0, 0, 0, 0)
    assert all(-1 <= value <= 1 for value in difference(text, "a **b**\n- c"))


def test_style():
    assert features("# Title\n- one\n2. two\n**bold** it might be, perhaps") == (11.0, 2.0, 1.0, 2.0)
    assert difference("one two three", "one") == (0.5, 0.0, 0.0, 0.0)


def davidson(rows: list[Verdict]) -> dict[str, float]:
    """Davidson's strengths by direct maximisation, with the same imagined opponent as in the package."""
    names = sorted({n for r in rows for n in (r.left, r.right)})
    m = len(names)

    def loss(theta):
        logs, v = np.append(theta[:m], theta[m + 1]), np.exp(theta[m])
        whole = 0.0
        games = [(names.index(r.left), names.index(r.right), r.outcome, r.times) for r in rows]
        games += [(i, m, side, PRIOR) for i in range(m) for side in ("left", "right")]  # type: ignore[misc]
        for i, j, outcome, times in games:
            a, b = np.exp(logs[i]), np.exp(logs[j])
            tie = 2 * v * math.sqrt(a * b)
            whole -= times * math.log({"left": a, "right": b, "tie": tie}[outcome] / (a + b + tie))
        return whole + 1e-9 * float(np.sum(theta**2))

    found = minimize(loss, np.zeros(m + 2), method="BFGS", options={"gtol": 1e-9}).x[:m]
    return dict(zip(names, found - found.mean(), strict=True))


def verdicts(seed: int, n: int, strengths: list[float], voters: int = 40, ties: float = 0.3) -> list[Verdict]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        i, j = rng.choice(len(strengths), 2, replace=False)
        a, b = np.exp((strengths[i] - strengths[j]) / 2), np.exp((strengths[j] - strengths[i]) / 2)
        chances = np.array([a, b, 2 * ties]) / (a + b + 2 * ties)
        outcome = ["left", "right", "tie"][rng.choice(3, p=chances)]
        rows.append(Verdict(f"v{rng.integers(voters)}", NAMES[i], NAMES[j], outcome))
    return rows


def strengths(rows: list[Verdict]) -> dict[str, float]:
    tally = VoteCounts.of(rows)
    return dict(zip(tally.models, fit(len(tally.models), tally.cells, tally.totals)[0], strict=True))


class TestRanking:
    @pytest.mark.parametrize("seed", range(3))
    def test_strengths_are_those_of_direct_maximisation(self, seed):
        rows = verdicts(seed, 200, [1, 0.4, 0, -0.5])
        mine = {
            one.model: (one.rating - 1000) * math.log(10) / 400 for one in rank(VoteCounts.of(rows)).standings
        }
        theirs = davidson(rows)
        for name, value in theirs.items():
            assert mine[name] == pytest.approx(value, abs=2e-3)

    def test_sides_and_the_order_of_votes_do_not_matter(self):
        rows = verdicts(4, 80, [0.5, 0, -0.5])
        turned = {"left": "right", "right": "left", "tie": "tie"}
        mirrored = [Verdict(r.voter, r.right, r.left, turned[r.outcome]) for r in reversed(rows)]
        one, other = rank(VoteCounts.of(rows)), rank(VoteCounts.of(mirrored))
        assert [s.model for s in one.standings] == [s.model for s in other.standings]
        for a, b in zip(one.standings, other.standings, strict=True):
            assert a.rating == pytest.approx(b.rating, abs=1e-6)
            assert (a.wins, a.losses, a.ties) == (b.wins, b.losses, b.ties)

    def test_counts_are_votes(self):
        rows = verdicts(5, 60, [0.5, 0, -0.5])
        grouped = Counter((r.voter, r.left, r.right, r.outcome) for r in rows)
        counted = [Verdict(*key, times) for key, times in grouped.items()]
        a, b = rank(VoteCounts.of(rows)), rank(VoteCounts.of(counted))
        assert [s.rating for s in a.standings] == pytest.approx([s.rating for s in b.standings])
        assert a.votes == b.votes == 60

    def test_records_by_hand(self):
        rows = [
            Verdict("v", "A", "B", "left", 3),
            Verdict("v", "B", "A", "tie", 2),
            Verdict("w", "C", "B", "left", 1),
        ]
        found = rank(VoteCounts.of(rows))
        record = {s.model: (s.wins, s.losses, s.ties, s.votes) for s in found.standings}
        assert record == {"A": (3, 0, 2, 5), "B": (0, 4, 2, 6), "C": (1, 0, 0, 1)}
        names = [s.model for s in found.standings]
        a, b, c = (names.index(n) for n in "ABC")
        assert found.rates[a][b] == pytest.approx(0.8)
        assert found.rates[b][c] == 0
        assert found.rates[a][c] is None
        assert found.meetings[a][b] == 5
        assert (found.votes, found.voters, found.clustered) == (6, 2, False)

    def test_rank_is_one_plus_those_wholly_above(self):
        found = rank(VoteCounts.of(verdicts(6, 1500, [1.2, 0.1, 0, -1.2])))
        for one in found.standings:
            above = sum(other.low > one.high for other in found.standings)
            below = sum(other.high < one.low for other in found.standings)
            assert (one.rank, one.worst) == (1 + above, 4 - below)
            assert one.low <= one.rating <= one.high
        assert [s.rank for s in found.standings] == [1, 2, 2, 4]
        assert found.standings[1].worst == 3

    @pytest.mark.parametrize(("wins", "losses"), [(3, 0), (8, 2), (5, 5), (12, 1), (60, 40), (90, 60)])
    @pytest.mark.slow
    def test_two_models_are_parted_as_jeffreys_interval_parts_them(self, wins, losses):
        """Two models by one voter: the lower end of the share of wins is known in closed form."""
        rows = [Verdict("me", "A", "B", "left", wins), Verdict("me", "A", "B", "right", losses)]
        found = rank(VoteCounts.of(rows), replicates=1000)
        low = beta.ppf(0.025, wins + 0.5, losses + 0.5)
        parted = found.standings[0].rank < found.standings[1].rank
        if abs(low - 0.5) > 0.02:
            assert parted == (low > 0.5)

    @pytest.mark.slow
    def test_intervals_cover_the_truth(self):
        truth = [0.8, 0.3, -0.3, -0.8]
        covered = 0
        for seed in range(40):
            found = rank(VoteCounts.of(verdicts(100 + seed, 400, truth)), replicates=200)
            for one in found.standings:
                true = 1000 + 400 / math.log(10) * truth[NAMES.index(one.model)]
                covered += one.low <= true <= one.high
        assert 0.89 <= covered / 160 <= 1.0

    @pytest.mark.slow
    def test_voters_not_votes_are_drawn_where_they_are_many(self):
        # Two camps that always say the same: 400 votes, but only 20 opinions.
        camps = [Verdict(f"v{k}", "A", "B", "left" if k < 12 else "right", 20) for k in range(20)]
        alone = [Verdict(f"w{k}", "A", "B", "left" if k < 240 else "right") for k in range(400)]
        wide, narrow = rank(VoteCounts.of(camps)), rank(VoteCounts.of(alone))
        assert wide.clustered
        assert narrow.clustered
        span = [r.standings[0].high - r.standings[0].low for r in (wide, narrow)]
        assert span[0] > 3 * span[1]

    def test_one_who_never_lost_has_a_finite_rating(self):
        found = rank(VoteCounts.of([Verdict("v", "A", "B", "left", 5), Verdict("v", "B", "C", "left", 5)]))
        assert [s.model for s in found.standings] == ["A", "B", "C"]
        assert all(math.isfinite(s.rating) for s in found.standings)

    @pytest.mark.slow
    def test_models_that_never_met_are_not_compared(self):
        rows = [Verdict("v", "A", "B", "left", 900), Verdict("v", "A", "B", "right", 100)]
        rows += [Verdict("v", "C", "D", "left", 500), Verdict("v", "C", "D", "right", 500)]
        found = rank(VoteCounts.of(rows))
        assert found.groups == 2
        places = {s.model: (s.group == found.standings[0].group, s.rank, s.worst) for s in found.standings}
        assert (places["A"][1:], places["B"][1:]) == ((1, 1), (2, 2))
        assert (places["C"][1:], places["D"][1:]) == ((1, 2), (1, 2))
        assert places["A"][0] == places["B"][0] != places["C"][0]
        assert found.flips is None
        assert [s.needed is None for s in found.standings].count(True) >= 2
        # As if the others were not there.
        alone = rank(VoteCounts.of(rows[:2]))
        assert [s.rating for s in found.standings if s.model in "AB"] == pytest.approx(
            [s.rating for s in alone.standings], abs=0.5
        )

    def test_few_votes_are_no_certainty_with_style_either(self):
        rows = [("me", "A", "B", "left", (0.1 * k, 0, 0, 0)) for k in range(3)]
        found = styled(rows)
        assert {s.rank for s in found.standings} == {1}
        assert found.standings[0].high - found.standings[0].low > 100
        assert [name for name, *_ in found.style] == ["length"]  # the others never differ

    def test_only_ties(self):
        found = rank(VoteCounts.of([Verdict("v", "A", "B", "tie", 10)]))
        assert {round(s.rating) for s in found.standings} == {1000}
        assert found.ties > 1

    def test_no_votes(self):
        assert rank(VoteCounts.of([])) is None
        assert styled([]) is None

    @pytest.mark.parametrize("seed", range(4))
    def test_so_many_turned_votes_do_flip_the_first_place(self, seed):
        """Brute force over all ways to turn fewer votes finds none, where that can be tried."""
        rows = verdicts(seed, 14, [0.9, 0, -0.6], ties=0.1)
        found = rank(VoteCounts.of(rows), replicates=20)
        assert found.flips is not None
        first = found.standings[0].model
        turned = {"left": "right", "right": "left", "tie": "tie"}

        def leader(places):
            """Who is first after turning these votes, if another than before."""
            changed = [
                Verdict(r.voter, r.left, r.right, turned[r.outcome] if i in places else r.outcome)
                for i, r in enumerate(rows)
            ]
            ratings = strengths(changed)
            best = max((name for name in ratings if name != first), key=lambda name: ratings[name])
            return best if ratings[best] >= ratings[first] - 1e-6 else None

        some = (set(c) for c in itertools.combinations(range(len(rows)), found.flips))
        assert found.challenger in {leader(places) for places in some}
        assert found.flips_exact == (found.flips <= 3)
        if found.flips <= 3:
            for k in range(1, found.flips):
                assert not any(leader(set(c)) for c in itertools.combinations(range(len(rows)), k))

    def test_the_challenger_is_who_would_then_be_first_not_who_would_pass_the_leader(self):
        """C passes A with one vote turned, but B, which beat C, is then first."""
        for seed in range(12):
            rows = verdicts(seed, 24, [0.3, 0.25, 0.2], ties=0.0)
            found = rank(VoteCounts.of(rows), replicates=1)
            if found.flips not in (1, 2):
                continue
            first = found.standings[0].model
            leads: dict[str, float] = {}
            for places in itertools.combinations(range(len(rows)), found.flips):
                changed = [
                    r._replace(outcome={"left": "right", "right": "left"}[r.outcome]) if i in places else r
                    for i, r in enumerate(rows)
                ]
                ratings = strengths(changed)
                best = max((name for name in ratings if name != first), key=lambda name: ratings[name])
                leads[best] = max(leads.get(best, -1e9), ratings[best] - ratings[first])
            assert leads[found.challenger] == pytest.approx(max(leads.values()), abs=1e-6)

    def test_style_is_held_alike(self):
        """Where only length decides, models are alike once length is held alike."""
        rng = np.random.default_rng(0)
        rows = []
        for k in range(1500):
            i, j = rng.choice(3, 2, replace=False)
            # A writes long; the longer answer wins three times in four.
            length = (0.6 if i == 0 else -0.6 if j == 0 else 0.0) + rng.normal() * 0.3
            win = rng.random() < 1 / (1 + math.exp(-3 * length))
            rows.append((f"v{k % 50}", NAMES[i], NAMES[j], "left" if win else "right", (length, 0, 0, 0)))
        plain = rank(VoteCounts.of(Verdict(*r[:4]) for r in rows))
        held = styled(rows, replicates=30)
        assert plain.standings[0].model == "A"
        assert plain.standings[0].rank < plain.standings[1].rank
        assert max(s.rating for s in held.standings) - min(s.rating for s in held.standings) < 80
        effect = {name: value for name, value, _, _ in held.style}
        assert effect["length"] == pytest.approx(3, abs=0.6)
        assert held.flips is None


class TestQuality:
    def casts(self, table: dict[str, dict[str, str]]) -> list[CastVote]:
        return [
            CastVote(f"{item}{voter}", voter, item, "A", "B", choice)
            for item, row in table.items()
            for voter, choice in row.items()
        ]

    @given(
        st.dictionaries(
            st.sampled_from("pqrstu"),
            st.dictionaries(st.sampled_from("xyz"), st.sampled_from(["left", "right", "tie"]), min_size=1),
            min_size=1,
        )
    )
    def test_alpha_is_krippendorffs(self, table):
        found = assess(self.casts(table))
        shared = {item: row for item, row in table.items() if len(row) > 1}
        assert found.shared == len(shared)
        values = {choice for row in shared.values() for choice in row.values()}
        if len(values) < 2:
            assert found.alpha is None
            return
        codes = {"left": 0, "right": 1, "tie": 2}
        data = [[codes.get(row.get(v), np.nan) for row in shared.values()] for v in "xyz"]
        theirs = krippendorff.alpha(reliability_data=data, level_of_measurement="nominal")
        assert found.alpha == pytest.approx(theirs, abs=1e-9)

    @pytest.mark.parametrize("models", [2, 4, 10])
    def test_alpha_of_coins_is_none_however_many_models_there_are(self, models):
        """As categories, models' names would make it agreement that nobody prefers who was not shown."""
        rng = Random(models)
        votes = []
        for item in range(1500):
            pair = rng.sample([f"m{i}" for i in range(models)], 2)
            for voter in "xy":
                left, right = rng.sample(pair, 2)
                votes.append(
                    CastVote(f"{item}{voter}", voter, f"i{item}", left, right, rng.choice(["left", "right"]))
                )
        alpha = assess(votes).alpha
        assert alpha is not None
        assert abs(alpha) < 0.08

    def test_one_question_about_several_pairs_is_several(self):
        votes = [CastVote("b1", "x", "q", "A", "B", "left"), CastVote("b2", "y", "q", "C", "D", "left")]
        assert assess(votes).shared == 0

    def test_the_same_winner_on_the_other_side_is_the_same(self):
        votes = [
            CastVote("b1", "x", "i", "A", "B", "left"),
            CastVote("b2", "x", "i", "B", "A", "right", "b1"),  # A again
            CastVote("b3", "x", "j", "A", "B", "tie"),
            CastVote("b4", "x", "j", "B", "A", "left", "b3"),  # not a tie any more
        ]
        found = assess(votes)
        assert found.repeated == 2
        assert found.consistency.value == 0.5
        assert found.decisive == 3
        assert found.left.value == pytest.approx(2 / 3)

    def test_wrong_answers_that_were_preferred(self):
        votes = [
            CastVote("1", "x", "i", "A", "B", "left", None, (True, False)),
            CastVote("2", "x", "j", "A", "B", "right", None, (True, False)),
            CastVote("3", "y", "k", "A", "B", "right", None, (False, True)),
            CastVote("4", "y", "l", "A", "B", "right", None, (True, True)),
            CastVote("5", "y", "m", "A", "B", "tie", None, (True, False)),
            CastVote("6", "y", "n", "A", "B", "left", None, (None, None)),
        ]
        preferred = preferred_wrong(votes)
        assert preferred is not None
        found, n = preferred
        assert (found.value, n) == (pytest.approx(1 / 3), 3)
        assert preferred_wrong(votes[3:]) is None

    def test_tau(self):
        found = rank(VoteCounts.of(verdicts(3, 600, [1.0, 0.5, 0, -0.8])))
        models = [s.model for s in found.standings]
        scores = {"A": 0.9, "B": 0.5, "C": 0.7, "X": 0.1}
        one = agreement(models, [s.rating for s in found.standings], found.replicates, scores)
        theirs = [scores[m] for m in models if m in scores]
        ratings = [s.rating for s in found.standings if s.model in scores]
        assert one.tau == pytest.approx(kendalltau(ratings, theirs).statistic)
        assert one.low <= one.tau <= one.high
        assert one.models == 3
        assert agreement(models, ratings, found.replicates, {"A": 1, "B": 0}) is None
        assert agreement(models, ratings, found.replicates, dict.fromkeys("ABC", 0.5)) is None
        ties = rank(VoteCounts.of([Verdict("v", a, b, "tie", 5) for a, b in ("AB", "BC", "AC")]))
        alike = [s.rating for s in ties.standings]
        assert agreement([*"ABC"], alike, ties.replicates, {"A": 1, "B": 2, "C": 3}) is None
