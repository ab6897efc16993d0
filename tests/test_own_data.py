"""A user's own files: what is read and what it means; split and preparation; refusals."""

import csv
import io
import json
import os
import pickle
import zipfile
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from organics.data.order import stratified_split
from organics.data.own.content import Content, Part, checked
from organics.data.own.meaning import meaning
from organics.data.own.preparation import Preparation
from organics.data.own.prepared import Shares, prepared
from organics.data.own.read import read, sum_of

N, T, M = 12, 5, 2
LENGTHS = np.array([5, 3, 1, 4, 5, 2, 5, 5, 3, 4, 1, 2])
WORDS = np.array(["b", "a", "ç"])[np.arange(N) % 3]


class _Missing:
    """As the missing value of Pandas: neither equal to itself nor not."""

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise TypeError("it is neither")

    def __hash__(self):
        return 0


def sequences(padding=np.nan):
    x = np.random.default_rng(0).normal(3, 10, (N, T, M))
    x[np.arange(T) >= LENGTHS[:, None]] = padding
    return x


def saved(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def written(path, rows):
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def long_form(x, y, lengths, **sets):
    """The rows of a table with a line for each step."""
    rows = [["id", "t", "u", "v", "Label", *sets]]
    for i, row in enumerate(x):
        for t in range(lengths[i]):
            rows.append([f"s{i}", t / 10, *row[t].tolist(), y[i], *(s[i] for s in sets.values())])
    return rows


def series(x, y, lengths, head="@classLabel true a b ç"):
    """The text of a .ts file."""
    lines = [
        "# a comment",
        "@problemName toy",
        "@timeStamps false",
        "@missing false",
        head,
        "@data",
    ]
    for row, label, n in zip(x, y, lengths, strict=True):
        lines.append(":".join([*(",".join(map(repr, d)) for d in row[:n].T.tolist()), str(label)]))
    return "\n".join(lines) + "\n"


# --- three formats, one content -------------------------------------------------------------------


def test_three_formats_hold_the_same_sequences(tmp_path):
    x = sequences()
    (tmp_path / "a.ts").write_text(series(x, WORDS, LENGTHS), encoding="utf-8")
    found = [
        read(saved(tmp_path / "a.npz", X=x, y_train=WORDS, lengths=LENGTHS)),
        read(written(tmp_path / "a.csv", long_form(x, WORDS, LENGTHS))),
        read(tmp_path / "a.ts"),
    ]
    ends = np.arange(T) < LENGTHS[:, None]
    for content in found:
        np.testing.assert_array_equal(content.train.lengths, LENGTHS)
        np.testing.assert_array_equal(content.train.x[ends], x[ends])
        np.testing.assert_array_equal(content.train.y, WORDS)
        meant = meaning(content)
        assert meant[:7] == ("classes", "last", T, M, 3, ("a", "b", "ç"), "text")
        np.testing.assert_array_equal(meant.train.y, np.array([1, 0, 2])[np.arange(N) % 3])
    assert found[1].features == ("u", "v")


def test_a_table_with_a_row_for_each_example_and_its_test_set(tmp_path):
    rows = [["p", "q", "y", "set"]] + [
        [i, -i / 2, i % 2, "test" if i > 7 else "train"] for i in range(10)
    ]
    content = read(written(tmp_path / "a.csv", rows))
    np.testing.assert_array_equal(content.train.x, [[i, -i / 2] for i in range(8)])
    np.testing.assert_array_equal(content.test.x, [[8, -4], [9, -4.5]])
    assert meaning(content)[:7] == ("classes", "last", 0, 2, 2, ("0", "1"), "int")


def test_numbers_at_every_step_and_several_at_once(tmp_path):
    x = sequences()
    rows = long_form(x, WORDS, LENGTHS)
    rows[0][4:] = ["y1", "y2"]
    rows[1:] = [[*row[:4], 2 * row[2], row[3] - 1] for row in rows[1:]]
    content = read(written(tmp_path / "a.csv", rows))
    meant = meaning(content)
    assert (meant.target, meant.at, meant.outputs) == ("numbers", "every", 2)
    ends = np.arange(T) < LENGTHS[:, None]
    np.testing.assert_allclose(meant.train.y[ends], x[ends] * [2, 1] - [0, 1])
    last = meaning(content, at="last").train.y
    np.testing.assert_allclose(last, meant.train.y[np.arange(N), LENGTHS - 1])


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("changes", [False, True])
def test_several_columns_are_numbers_even_whole_ones(tmp_path, steps, changes):
    """Also if there are as many as steps."""
    values = [[i % 3 + 1 + changes * t, i // 3 % 3 + 4] for i in range(60) for t in range(steps)]
    rows = [[i // steps, i, *two] for i, two in enumerate(values)]
    content = read(written(tmp_path / "a.csv", [["id", "u", "y1", "y2"], *rows]))
    each = np.reshape(values, (60, steps, 2))
    every = changes and steps > 1
    meant = meaning(content)
    assert meant[:5] == ("numbers", "every" if every else "last", steps, 1, 2)
    np.testing.assert_array_equal(meant.train.y, each if every else each[:, -1])
    np.testing.assert_array_equal(meaning(content, at="last").train.y, each[:, -1])
    np.testing.assert_array_equal(meaning(content, at="every").train.y, each)
    if not every:
        with pytest.raises(ValueError, match=r"`y` of shape \(60, 2\) does not have a class"):
            meaning(content, "classes")


def test_several_columns_of_vectors_are_numbers(tmp_path):
    rows = [[i, i % 3 + 1, i // 3 % 3 + 4] for i in range(60)]
    train = written(tmp_path / "a.csv", [["u", "y1", "y2"], *rows])
    for test in (None, written(tmp_path / "b.csv", [["u", "y1", "y2"], *rows[:9]])):
        meant = meaning(read(train, test))
        assert meant[:5] == ("numbers", "last", 0, 1, 2)
        np.testing.assert_array_equal(meant.train.y, np.array(rows)[:, 1:])


def test_none_may_be_a_class(tmp_path):
    rows = [[i, ("left", "none", "null")[i % 3]] for i in range(12)]
    meant = meaning(read(written(tmp_path / "a.csv", [["u", "y"], *rows])))
    assert meant.names == ("left", "none", "null")


@pytest.mark.parametrize(
    ("texts", "names", "kind"),
    [
        (("001", "1", "01"), ("001", "01", "1"), "text"),
        (("1_0", "10", "2"), ("10", "1_0", "2"), "text"),
        (("-1", "+1", "0"), ("-1", "0", "1"), "int"),
        (("1.0", "2.0", "3.0"), ("1", "2", "3"), "int"),
        (("1", "2", "x"), ("1", "2", "x"), "text"),  # the test rows have no x
    ],
)
def test_codes_stay_what_they_are(tmp_path, texts, names, kind):
    rows = [[i, texts[i % 3], "train"] for i in range(12)]
    rows += [[i, texts[i % 2], "test"] for i in range(6)]
    content = read(written(tmp_path / "a.csv", [["u", "y", "set"], *rows]))
    meant = meaning(content)
    assert (meant.target, meant.names, meant.label_type) == ("classes", names, kind)
    assert [meant.names[i] for i in meant.test.y] == [
        meant.names[i] for i in meant.train.y[[0, 1] * 3]
    ]


def test_tables_in_two_files_have_one_type(tmp_path):
    """What each by itself would be: three classes, of which the test rows have the numbers alone;
    and classes of whole sequences."""
    rows = [[i, ("1", "2", "3a")[i % 3]] for i in range(15)]
    tests = [[i, ("1", "2")[i % 2]] for i in range(10)]
    train = written(tmp_path / "a.csv", [["u", "y"], *rows])
    meant = meaning(read(train, written(tmp_path / "b.csv", [["u", "y"], *tests])))
    assert meant.names == ("1", "2", "3a")
    np.testing.assert_array_equal(meant.test.y, [0, 1] * 5)
    rows = [[i, t, t % 2] for i in range(4) for t in range(3)]
    tests = [[i, t, i % 2] for i in range(2) for t in range(3)]
    train = written(tmp_path / "c.csv", [["id", "u", "y"], *rows])
    meant = meaning(read(train, written(tmp_path / "d.csv", [["id", "u", "y"], *tests])))
    assert (meant.at, meant.names) == ("every", ("0", "1"))
    np.testing.assert_array_equal(meant.test.y, [[0] * 3, [1] * 3])


def test_numbers_may_be_written_in_several_ways(tmp_path):
    rows = [[i, ("1e1", "10", "2.0", "007.5")[i % 4]] for i in range(12)]
    meant = meaning(read(written(tmp_path / "a.csv", [["u", "y"], *rows])))
    assert meant.target == "numbers"
    np.testing.assert_array_equal(meant.train.y[:4, 0], [10, 10, 2, 7.5])


def test_a_test_set_in_a_table_is_of_the_kind_of_the_others(tmp_path):
    """Its sequences happen to have one class each, and to be longer."""
    rows = [[i, t, t % 2, "train"] for i in range(4) for t in range(3)]
    rows += [[i, t, i % 2, "test"] for i in (4, 5) for t in range(5)]
    meant = meaning(read(written(tmp_path / "a.csv", [["id", "u", "y", "set"], *rows])))
    assert (meant.at, meant.names) == ("every", ("0", "1"))
    np.testing.assert_array_equal(meant.test.y, [[0] * 5, [1] * 5])
    np.testing.assert_array_equal(meant.train.y[:, :3], [[0, 1, 0]] * 4)


def test_as_many_numbers_as_steps_are_not_made_longer():
    """Five numbers of sequences of five steps, and a test set with eight."""
    x, y = np.ones((40, 5, 2)), np.random.default_rng(0).normal(size=(40, 5))
    test = Part(np.ones((9, 8, 2)), y[:9])
    meant = meaning(checked(Content("the arrays", Part(x, y), test)), at="last")
    assert meant.outputs == 5 and meant.steps == 8
    np.testing.assert_array_equal(meant.train.y, y)
    np.testing.assert_array_equal(meant.test.y, y[:9])


def test_a_test_set_in_another_file_may_have_other_lengths(tmp_path):
    x = sequences(0.0)
    train, test = tmp_path / "a_TRAIN.ts", tmp_path / "a_TEST.ts"
    train.write_text(series(x, WORDS, LENGTHS), encoding="utf-8")
    longer = np.concatenate([x, x], axis=1)
    test.write_text(series(longer, WORDS, LENGTHS + 5), encoding="utf-8")
    content = read(train, test)
    assert content.train.x.shape == content.test.x.shape == (N, 2 * T, M)
    np.testing.assert_array_equal(content.test.lengths, LENGTHS + 5)
    np.testing.assert_array_equal(content.train.lengths, LENGTHS)
    with pytest.raises(ValueError, match="`test` must not be given"):
        read(saved(tmp_path / "b.npz", x=x, y=WORDS, x_test=x, y_test=WORDS), test)


def test_classes_of_any_hashable_type_come_back():
    x = np.eye(6)
    for labels, kind in (
        ([3, -1] * 3, "int"), ([True, False] * 3, "bool"), ([0.5, 1.5] * 3, "float"),
        (["b", "a"] * 3, "text"), ([b"b", b"a"] * 3, "text"), (np.array([b"b", b"a"] * 3), "text"),
        (np.array([0.1, 0.7] * 3, "float32"), "float32"), ([0.0, 1e19] * 3, "float"),
        (np.array([0, 2**64 - 1] * 3, "uint64"), "uint64"),
        (np.array([np.int64(3), np.int64(-1)] * 3, object), "int"),
        ([2**70, 3] * 3, "text"),
    ):  # fmt: skip
        content = checked(Content("toy", Part(x, labels)))
        meant = meaning(content, "classes")
        back = Preparation((), (), meant.names, meant.label_type).labels(meant.train.y)
        assert meant.label_type == kind
        assert [str(label) for label in back] == [str(label) for label in content.train.y]
        assert kind == "text" or np.all(back == content.train.y)
    two = [Part(x, np.array(some * 3, object)) for some in (["a", "b"], ["a", 1])]
    with pytest.raises(ValueError, match="`y_test`, row 1: the class '1' is only in the test set"):
        meaning(checked(Content("toy", *two)))
    mixed = [("a", 1), int, "a"] * 2
    meant = meaning(checked(Content("toy", Part(x, mixed))))
    assert meant.outputs == 3 and meant.label_type == "text"
    assert [meant.names[i] for i in meant.train.y] == [str(label) for label in mixed]


def test_whole_numbers_are_classes_unless_there_are_too_many():
    x = np.eye(40)
    kind = lambda y, **more: meaning(checked(Content("toy", Part(x, y))), **more)  # noqa: E731
    assert kind(np.arange(40) % 4.0).target == "classes"
    assert kind(np.arange(40) % 4 + 0.5).target == "numbers"
    assert kind(np.arange(40) // 2 * 1.0).target == "numbers"
    for many in (np.arange(40), np.arange(40) // 2):
        with pytest.raises(ValueError, match="`y` has .* whole numbers in 40 .* by `target`"):
            kind(many)
    assert kind(np.arange(40) // 4).target == "classes"
    assert kind(np.arange(40), target="numbers").train.y.shape == (40, 1)
    with pytest.raises(ValueError, match="`at` must be last"):
        kind(np.arange(40) % 4, at="every")


def test_what_is_given_once_can_be_asked_at_every_step_and_the_other_way_round():
    x = np.zeros((4, 3, 1))
    each = np.array([[0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
    padded = np.where(np.arange(3) < np.array([[3], [2], [1], [3]]), each, 0.5)
    meant = partial(meaning, checked(Content("toy", Part(x, padded, [3, 2, 1, 3]))))
    assert meant().at == "every" and meant(at="last").train.y.tolist() == [1, 0, 1, 1]
    once = meaning(checked(Content("toy", Part(x, [0, 1, 1, 0]))), at="every")
    assert once.train.y.tolist() == [[0] * 3, [1] * 3, [1] * 3, [0] * 3]
    either = checked(Content("toy", Part(x, each + 0.5)))
    with pytest.raises(ValueError, match="say which by `at`"):
        meaning(either)
    assert meaning(either, at="last").outputs == 3 and meaning(either, at="every").outputs == 1


# --- split and preparation ------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32 - 1), counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    share=st.sampled_from([0.1, 0.2, 0.5]),
)  # fmt: skip
def test_a_split_takes_its_share_of_every_class(seed, counts, share):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    if round(share * sum(count for count in counts if count > 1)) == 0:
        with pytest.raises(ValueError, match="too few examples"):
            stratified_split(labels, share, seed)
        return
    kept, taken = stratified_split(labels, share, seed)
    assert sorted([*kept, *taken]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        here = np.sum(labels[taken] == label)
        assert here < count  # no class is lost
        assert abs(here - share * count) <= 1 + share if count > 1 else here == 0
    again = stratified_split(labels, share, seed)
    assert np.array_equal(again[1], taken)


def test_a_split_depends_on_its_seed_alone():
    """It never changes with versions."""
    kept, taken = stratified_split(np.arange(20) % 2, 0.25, 3)
    assert taken.tolist() == SPLIT and len(kept) == 15
    assert stratified_split(np.arange(20) % 2, 0.25, 4)[1].tolist() != SPLIT


SPLIT = [1, 3, 8, 13, 14]


def of(x, y, lengths=None, *, standardize=True, target=None, at=None, test=None):
    content = checked(Content("toy", Part(x, y, lengths), test))
    shares = Shares(0.25, 0.25, 0)
    return prepared("toy", "toy", meaning(content, target, at), shares, standardize)


def test_inputs_are_standardised_by_the_training_examples_before_their_ends():
    x = np.concatenate([sequences(), np.full((N, T, 1), 7.0)], axis=-1)
    found = of(x, WORDS, LENGTHS)
    ends = np.arange(T) < found.training.lengths[:, None]
    assert found.training.x.dtype == np.float32 and not found.training.x[~ends].any()
    np.testing.assert_allclose(found.training.x[ends].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(found.training.x[ends].std(0), [1, 1, 0], atol=1e-6)
    mean, scale = np.array(found.preparation.mean), np.array(found.preparation.scale)
    back = found.test.x * scale + mean
    whole = x[[np.flatnonzero(np.isclose(x[:, 0, 0], row[0, 0], rtol=1e-4))[0] for row in back]]
    before = np.arange(T) < found.test.lengths[:, None]
    np.testing.assert_allclose(back[before], whole[before], rtol=1e-5)
    assert scale[2] == 1
    plain = of(x, WORDS, LENGTHS, standardize=False).preparation
    assert plain.mean == (0, 0, 0) and plain.scale == (1, 1, 1)


@pytest.mark.parametrize("size", [1e-300, 1e-170, 1.0, 1e300])
def test_numbers_of_all_sizes_are_standardised(size):
    x = np.random.default_rng(0).uniform(-1, 1, (N, 2))
    found = of(x * size, WORDS)
    np.testing.assert_allclose(found.training.x.std(0), 1, rtol=1e-5)
    np.testing.assert_allclose(found.training.x, of(x, WORDS).training.x, rtol=1e-5, atol=1e-6)


def test_classes_of_few_bits_are_those_of_many():
    few = of(sequences(0.0), (np.arange(N) % 3).astype(np.float16))
    assert few.preparation.classes == of(sequences(0.0), np.arange(N) % 3).preparation.classes


def test_words_for_what_is_missing_may_follow_the_ends_of_sequences():
    y = np.where(np.arange(T) < LENGTHS[:, None], np.array(WORDS)[:, None], "")
    content = checked(Content("toy", Part(sequences(), y, LENGTHS)))
    assert meaning(content, "classes", "every").names == tuple(sorted(set(WORDS)))


def test_what_comes_after_the_ends_changes_nothing():
    y = np.random.default_rng(1).normal(size=(N, T, 1))
    found = []
    for padding in (np.nan, np.inf, 1e300, 0.0):
        wanted = y.copy()
        wanted[np.arange(T) >= LENGTHS[:, None]] = padding
        found.append(of(sequences(padding), wanted, LENGTHS))
    for other in found[1:]:
        assert other.preparation == found[0].preparation
        for one, two in zip(found[0][2:], other[2:], strict=True):
            np.testing.assert_array_equal(one.x, two.x)
            ends = np.arange(T) < one.lengths[:, None]
            np.testing.assert_array_equal(one.y[ends], two.y[ends])


@pytest.mark.parametrize(("steps", "lengths"), [((5, 3), None), ((3, 5), None), ((4, 4), [2, 3])])
def test_parts_have_lengths_both_or_none(steps, lengths):
    y = [0, 1]
    train, test = (np.ones((2, count, 1)) for count in steps)
    content = checked(Content("toy", Part(train, y), Part(test, y, lengths)))
    assert content.train.lengths.tolist() == [steps[0]] * 2
    assert content.test.lengths.tolist() == (lengths or [steps[1]] * 2)
    assert checked(Content("toy", Part(train, y), Part(train, y))).test.lengths is None


@pytest.mark.parametrize("after", [None, np.nan, {}])
def test_after_the_ends_there_may_be_no_classes(after):
    x = np.zeros((3, 2, 1))
    y = np.array([["a", "b"], ["b", after], ["b", "a"]], object)
    meant = meaning(checked(Content("toy", Part(x, y, [2, 1, 2]))))
    assert meant.names == ("a", "b") and meant.train.y.tolist() == [[0, 1], [1, 0], [1, 0]]
    masked = np.ma.array([[0, 1], [1, 7], [1, 0]], mask=[[0, 0], [0, 1], [0, 0]])
    meant = meaning(checked(Content("toy", Part(x, masked, [2, 1, 2]))))
    assert meant.names == ("0", "1") and meant.train.y.tolist() == [[0, 1], [1, 0], [1, 0]]


def test_numbers_come_back_in_their_units():
    y = 1000 + 7 * np.random.default_rng(2).normal(size=(40, 2))
    found = of(np.random.default_rng(3).normal(size=(40, 3)), y)
    np.testing.assert_allclose(found.training.y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.training.y.std(0), 1, rtol=1e-5)
    back = found.preparation.numbers(found.test.y)
    assert all(np.any(np.all(np.isclose(y, row, rtol=1e-6), axis=1)) for row in back)


def test_a_preparation_survives_json():
    one = of(sequences(), WORDS, LENGTHS).preparation
    text = json.dumps(one.to_document(), allow_nan=False)
    assert Preparation.from_document(json.loads(text)) == one
    for wrong in ({"mean": [1.0]}, {"scale": [0.0, 1.0]}, {"classes": [1]}, {"label_type": 3}):
        with pytest.raises(ValueError):
            Preparation.from_document(one.to_document() | wrong)


# --- refusals -------------------------------------------------------------------------------------

X, Y = np.arange(24.0).reshape(12, 2), np.arange(12) % 2
S = X.reshape(6, 2, 2)


def with_value(array, where, value):
    array = np.array(array, float)
    array[where] = value
    return array


ARRAYS = {
    "not finite": ({"x": with_value(X, (7, 1), np.nan), "y": Y}, ["row 7", "x[7, 1]", "nan"]),
    "infinite": ({"x": with_value(X, (3, 0), np.inf), "y": Y}, ["row 3", "x[3, 0]", "inf"]),
    "not finite before the end": (
        {"x": with_value(S, (4, 1, 0), np.nan), "y": Y[:6], "lengths": [1, 1, 1, 1, 2, 1]},
        ["row 4", "x[4, 1, 0]"],
    ),
    "numbers not finite": ({"x": X, "y": with_value(Y, 5, np.nan) + 0.5}, ["row 5", "`y[5]`"]),
    "other numbers of rows": ({"x": X, "y": Y[:-1]}, ["`y` has 11 rows", "`x` has 12"]),
    "one class": ({"x": X, "y": Y * 0}, ["`y` has one class only, '0'"]),
    "text": ({"x": X.astype(str), "y": Y}, ["`x`", "real numbers", "text"]),
    "complex": ({"x": X * 1j, "y": Y}, ["`x`", "real numbers", "complex"]),
    "objects": ({"x": X.astype(object), "y": Y}, ["`x`", "Python objects", "never opened"]),
    "ragged": ({"x": np.array([[1], [1, 2]], object), "y": Y[:2]}, ["`x`", "pad", "lengths"]),
    "classes as objects": ({"x": X, "y": Y.astype(object)}, ["`y`", "Python objects"]),
    "dates": ({"x": X, "y": Y.astype("datetime64[D]")}, ["`y`", "datetime64"]),
    "one axis": ({"x": X[:, 0], "y": Y}, ["`x`", "(samples, features)", "(12,)"]),
    "four axes": ({"x": S[None], "y": Y[:1]}, ["`x`", "(1, 6, 2, 2)"]),
    "empty": ({"x": X[:0], "y": Y[:0]}, ["`x` is empty"]),
    "no features": ({"x": X[:, :0], "y": Y}, ["`x` is empty"]),
    "length 0": ({"x": S, "y": Y[:6], "lengths": [2, 2, 0, 1, 1, 1]}, ["row 2", "`lengths`", "0"]),
    "too long": ({"x": S, "y": Y[:6], "lengths": [2, 3, 1, 1, 1, 1]}, ["row 1", "1 to 2", "3"]),
    "half lengths": ({"x": S, "y": Y[:6], "lengths": [1.5] * 6}, ["`lengths`", "whole numbers"]),
    "lengths of others": ({"x": S, "y": Y[:6], "lengths": [1] * 5}, ["`lengths`", "(6,)"]),
    "lengths of vectors": ({"x": X, "y": Y, "lengths": [1] * 12}, ["`lengths`", "sequences"]),
    "one-hot": ({"x": X, "y": np.eye(3, dtype=int)[Y]}, ["`y`", "(12, 3)", "argmax"]),
    "classes in another encoding": (
        {"x": X, "y": np.array([b"\xe4", b"\xf6", b"x"] * 4)}, ["`y`, row 0", "not in UTF-8"]),
    "only in the test": (
        {"x": X, "y": Y, "x_test": X, "y_test": np.arange(12)}, ["`y_test`, row 2", "'2'"]),
    "other features": ({"x": X, "y": Y, "x_test": S[:, 0, :1], "y_test": Y[:6]}, ["`x_test`"]),
    "half a test set": ({"x": X, "y": Y, "x_test": X}, ["lacks `y_test`"]),
    "misspelt": ({"x": X, "y": Y, "lenghts": Y}, ["'lenghts'", "did you mean 'lengths'"]),
    "nothing to learn": ({"x": X}, ["lacks `y`"]),
    "other names": ({"x": X, "y": Y, "features": ["a"]}, ["`features` has 1 names", "2 features"]),
    "too large": ({"x": with_value(X, (0, 0), 1e300), "y": Y}, ["`x`", "too large"]),
    "too few": ({"x": X[:2], "y": ["a", "b"]}, ["too few examples"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_cannot_be_learned_from(tmp_path, case):
    arrays, words = ARRAYS[case]
    path = saved(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError) as caught:
        content = read(path)
        prepared("bad", content.source, meaning(content), Shares(0.25, 0.25, 0), True)
    for word in (str(path), *words):
        assert word in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([[1.0, 2.0], [1.0]], [0, 1], ["`x`, row 1", "pad", "lengths"]),
        ([[[1.0], [2.0]], [[1.0]]], [0, 1], ["`x`, row 1", "pad"]),
        (X, [[0], *[[0, 1]] * 11], ["`y`, row 1"]),
        (X, [{}] * 12, ["`y`, row 0", "cannot be a class"]),
        (X, [*["a", "b"] * 5, _Missing(), "a"], ["`y`, row 10", "cannot be a class"]),
        (X, [0, None] * 6, ["`y`, row 1", "None"]),
        (X, np.array([*["a", "b"] * 5, np.nan, "a"]), ["`y`, row 10", "'nan' cannot be a class"]),
        (X, [*["a", "b"] * 5, "", "a"], ["`y`, row 10", "'' cannot be a class"]),
        (X, np.array([*["a", "b"] * 5, "N/A", 3], object), ["`y`, row 10", "'N/A' cannot"]),
        (np.ma.masked_equal(X, X[4, 1]), Y, ["`x`, row 4", "x[4, 1]"]),
        (X, np.ma.array(Y + 0.5, mask=np.arange(12) == 5), ["`y`, row 5", "not finite"]),
        (X, np.ma.array(Y, mask=np.arange(12) == 5), ["`y`, row 5", "None cannot be a class"]),
        (X, 3, ["`y`"]),
        (X, Y + 1j, ["`y`", "complex"]),
        ("text", Y, ["`x`"]),
    ],
)
def test_arguments_that_cannot_be_learned_from(x, y, words):
    with pytest.raises(ValueError) as caught:
        meaning(checked(Content("the arrays", Part(x, y))))
    for word in ("the arrays", *words):
        assert word in str(caught.value), caught.value


GOOD = [["id", "t", "u", "y"], *[[i // 2, i % 2, i, i // 2 % 2] for i in range(12)]]


def changed(line, column, value):
    rows = [list(row) for row in GOOD]
    rows[line - 1][column] = value
    return rows


TABLES = {
    "text": (changed(3, 2, "x"), ["line 3", "`u`", "finite number, not 'x'"]),
    "grouped digits": (changed(3, 2, "1_0"), ["line 3", "`u`", "finite number, not '1_0'"]),
    "missing": (changed(4, 2, " "), ["line 4", "`u` is missing"]),
    "infinite": (changed(5, 2, "-inf"), ["line 5", "`u`", "-inf"]),
    "no class": (changed(6, 3, ""), ["line 6", "`y` is missing"]),
    "no number to learn": (
        [["u", "y"], *[[i, "NA" if i == 7 else i + 0.5]
                       for i in range(12)]],
        ["line 9", "`y` is missing"]),
    "a word for none": (
        [["u", "y"], *[[i, "NULL" if i == 7 else i % 2] for i in range(12)]],
        ["line 9", "`y` is missing"]),
    **{
        f"a class {word}": (
            [["u", "y"], *[[i, word if i == 7 else "ab"[i % 2]] for i in range(12)]],
            ["line 9", "`y` is missing; fill in"])
        for word in ("?", "nan", "NaN", "n/a", "#N/A", "<na>", "NA")
    },
    "an id in both sets": (
        [["id", "u", "y", "set"], *[[i // 2, i, i % 4 // 2, "test" if i == 9 else "train"]
                                    for i in range(12)]],
        ["line 11", "the id '4' is in both train and test"]),
    "no id": (changed(4, 0, " "), ["line 4", "`id` is missing"]),
    "an index": ([["", "u", "y"], *[[i, i, i % 2] for i in range(12)]], ["column 1 has no name"]),
    "time goes back": (changed(3, 1, 0), ["line 3", "`t` must increase"]),
    "ragged": ([*GOOD, [1, 2]], ["line 14 has 2 values", "4 columns"]),
    "no names": (GOOD[1:], ["names of its columns in the first line"]),
    "no y": ([["a", "b"], [1, 2]], ["needs a column y", "label"]),
    "no features": ([["id", "y"], [1, 2]], ["no inputs"]),
    "two alike": ([["u", "u", "y"], [1, 2, 3]], ["two columns 'u'"]),
    "no rows": (GOOD[:1], ["no rows"]),
    "semicolons": ([["u;v;y"], ["1;2;a"]], ["must have commas between the columns"]),
    "one class": ([row[:3] + row[3:] if i == 0 else [*row[:3], 1] for i, row in enumerate(GOOD)],
                  ["one class only, '1'"]),
    "another set": ([["u", "y", "set"], [1, 0, "train"], [2, 1, "dev"]], ["line 3", "dev"]),
    "only tests": ([["u", "y", "set"], [1, 0, "test"]], ["only rows of the set test"]),
    "nothing": ([], ["first line"]),
    "two to learn": ([["x", "y", "label"], [1, 2, 0]], ["columns y and label: only one may be"]),
    "one to learn, and several": ([["u", "y", "y1", "y2"], [1, 2, 3, 4]], ["y and y1 and y2"]),
    "two names": ([["id", "sequence", "u", "y"], [1, 2, 3, 0]], ["id and sequence: only one"]),
    "two times": ([["id", "time", "t", "u", "y"], [1, 2, 3, 4, 0]], ["time and t: only one"]),
    "two sets": ([["set", "split", "u", "y"], *[["train", "train", 1, 0]]], ["set and split"]),
    "a class in two ways": (
        [["u", "y"], *[[i, ("1e1", "10", "2E0")[i % 3]] for i in range(12)]],
        ["ambiguous: '10' and '1e1' are one number"]),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_cannot_be_learned_from(tmp_path, case):
    rows, words = TABLES[case]
    path = written(tmp_path / "bad.csv", rows)
    with pytest.raises(ValueError) as caught:
        meaning(read(path))
    for word in (str(path), *words):
        assert word in str(caught.value), caught.value


SERIES = {
    "missing": ("1,?:a", ["line 8", "value 2 of dimension 1 is missing"]),
    "not a number": ("1,2;3:a", ["line 8", "value 2 of dimension 1", "'2;3'"]),
    "dimensions differ": ("1,2:3:a", ["line 8", "dimension 2 has 1 values, the first 2"]),
    "more dimensions": ("1,2:3,4:a", ["line 8 has 2 dimensions"]),
    "unknown class": ("1,2:z", ["line 8", "'z'", "@classLabel"]),
    "no class": ("1,2", ["line 8", "a colon and a label"]),
}


@pytest.mark.parametrize("case", SERIES)
def test_series_that_cannot_be_learned_from(tmp_path, case):
    line, words = SERIES[case]
    path = tmp_path / "bad.ts"
    head = "timeStamps false", "missing true", "univariate true", "equalLength false"
    lines = [*(f"@{word}" for word in head), "@classLabel true a b", "@data", "1,2,3:b", line]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError) as caught:
        read(path)
    for word in (str(path), *words):
        assert word in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("@timeStamps true\n@classLabel true a b\n@data\n(0,1):a\n", ["line 1", "time stamps"]),
        ("@classLabel true a b\n1,2:a\n", ["no line @data"]),
        ("@classLabel false\n@data\n1,2\n", ["nothing to be learned"]),
        ("@classLabel true a b\n@data\n", ["no cases"]),
        ("@classLabel true\n@data\n1,2:a\n1,2:?\n", ["line 4", "the class is missing"]),
        ("@classLabel true a NA\n@data\n1,2:a\n1,2:NA\n", ["line 4", "the class is missing"]),
        ("@targetLabel true\n@data\n1,2:x\n", ["line 3", "number to be learned", "'x'"]),
        (
            "@equalLength True\n@classLabel true a b\n@data\n1,2:a\n1:b\n",
            ["line 5", "@equalLength"],
        ),
    ],
)
def test_what_is_no_file_of_series(tmp_path, text, words):
    path = tmp_path / "bad.ts"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read(path)
    for word in (str(path), *words):
        assert word in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "u,y\n1,b\n2,\xe9\n3,\xe8\n", ["line 3: `y`"]),
        ("b.csv", "u,\xe9,y\n1,2,b\n", ["line 1: a name"]),
        ("c.csv", "id,u,y\n\xe9,1,b\n", ["line 2: `id`"]),
        ("a.ts", "@classLabel true \xe9 \xe8\n@data\n1:\xe9\n2:\xe8\n", ["@classLabel"]),
        ("b.ts", "@classLabel true\n@data\n1:\xe9\n2:\xe8\n", ["line 3: the class"]),
    ],
)
def test_words_in_another_encoding_are_not_mixed_up(tmp_path, name, text, words):
    """Two classes, each of one accented letter, would both be the sign for unreadable bytes."""
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError) as caught:
        read(path)
    for word in (str(path), "is not in UTF-8", *words):
        assert word in str(caught.value), caught.value
    path.write_text(text, encoding="utf-8")
    assert read(path).train.x.size


def test_numbers_to_be_learned_from_series(tmp_path):
    path = tmp_path / "a.ts"
    path.write_text("@targetLabel true\n@data\n1,2:3\n4,5:-1\n")
    meant = meaning(read(path))
    assert meant.target == "numbers" and meant.train.y.tolist() == [[3], [-1]]


def test_no_pickle_is_opened_and_no_bomb_goes_off(tmp_path, monkeypatch):
    class Exploding:
        def __reduce__(self):
            return os.abort, ()

    (tmp_path / "a.npz").write_bytes(pickle.dumps(Exploding()))
    with pytest.raises(ValueError, match="a.npz is not a complete .npz archive"):
        read(tmp_path / "a.npz")
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": (1 << 12, 1 << 12)}
    )
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", stream.getvalue() + bytes(1 << 24))
        archive.writestr("y.npy", stream.getvalue() + bytes(1 << 10))
    with pytest.raises(ValueError, match="b.npz: y. declares shape .4096, 4096."):
        read(tmp_path / "b.npz")
    # bytes are counted as they are after widening: 16 MB of bytes are 80 MB with float32
    whole = saved(tmp_path / "c.npz", x=np.zeros((1 << 12, 1 << 12), np.uint8), y=np.zeros(1 << 12))
    monkeypatch.setattr("organics.machine.memory.available", lambda: 60_000_000)
    monkeypatch.setattr(
        "organics.files.npy.read_entries", lambda *_: pytest.fail("it must not be read")
    )
    with pytest.raises(ValueError, match="c.npz` asks for too much memory"):
        read(whole)


@pytest.mark.parametrize("name", ["a.parquet", "a.txt", "nothing", "a.npy"])
def test_other_files_are_refused_by_their_ending(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=f"{name} must end in .npz, .csv, .ts"):
        read(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="not a regular file"):
        sum_of(tmp_path / "a.csv")
    with pytest.raises(OSError, match="b.csv"):
        sum_of(tmp_path / "b.csv")
