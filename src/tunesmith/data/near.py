"""Inputs that are nearly the same: found by MinHash and by rare words, proven on the texts themselves.

Two inputs are near copies if their sets of character 5-grams have a Jaccard index of at least 0.8, or if both have at
least twelve words and at most two words of each are missing in the other. The first suits long texts with many small
edits, and short ones that differ in punctuation. The second suits sentences: there a single changed word breaks ten of
sixty 5-grams, and two bring the index below a half, where texts about one subject begin to look alike.

Candidates come from hashes, so a few near copies may be missed (MinHash: Broder 1997; the rare words miss none: it is
the prefix filter of Chaudhuri, Ganti and Kaushik 2006). Each candidate is then compared word by word, so that no hash
can raise a false alarm. Of very long inputs the first characters are compared.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, combinations

import numpy as np
from rensa import RMinHash

SHINGLE = 5
ALIKE = 0.8
FEWEST_WORDS = 12
CHANGED_WORDS = 2
LONGEST_CHARACTERS = 10_000

BANDS, BAND_WIDTH = 14, 6
"""A pair of index 0.8 shares a band of six in fourteen with probability 1 - (1 - 0.8^6)^14 = 0.986; one of 0.3 with
0.010, so that few pairs need comparing."""

SHARED_RARE_WORDS = 4
"""Near copies share four of the six rarest words of each, since at most two words are missing."""

NEIGHBOURS = 8
"""In a crowd of inputs with one key, each meets the first and so many next: a crowd of n costs n, not n squared."""

TRIES = 8
"""So many of an input's likeliest candidates are compared."""

_BLOCK_CHARACTERS = 4_000_000
_KEPT_SETS = 256
_FACTOR, _MIXER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)
_PUNCTUATION = str.maketrans("", "", string.punctuation + "“”‘’«»„…–—¿¡")

Compare = Callable[[int, int], bool]


def near_copies(texts: Sequence[str], groups: Sequence[int]) -> np.ndarray:
    """Which texts nearly repeat an earlier one.

    Args:
        texts: normalised, all different.
        groups: of which group each text is, from 0; for example its split.

    Returns:
        (texts, groups) booleans: whether a text that comes before, and is of that group, is a near copy.
    """
    texts = [text[:LONGEST_CHARACTERS] for text in texts]
    group_of = np.asarray(groups, dtype=np.int64)
    found = np.zeros((len(texts), 1 + int(group_of.max(initial=0))), dtype=bool)
    if len(texts) > 1:
        _mark(found, *_sharing(_band_keys(texts)), group_of, _by_shingles(texts))
        where, bags = _bags_of_words(texts)
        kept, keys = _rare_word_keys(bags)
        earlier, later, times = _sharing(keys)
        places = np.asarray(where, dtype=np.int64)[kept]
        _mark(found, places[earlier], places[later], times, group_of, _by_words(dict(zip(where, bags, strict=True))))
    return found


def _mark(
    found: np.ndarray, earlier: np.ndarray, later: np.ndarray, times: np.ndarray, group_of: np.ndarray, alike: Compare
) -> None:
    """Set `found` where a candidate proves true, beginning with those that share the most keys."""
    groups = group_of[earlier]
    order = np.lexsort((-times, groups, later))
    known, asked, tries = found.tolist(), (-1, -1), 0
    for one, other, group in zip(earlier[order].tolist(), later[order].tolist(), groups[order].tolist(), strict=True):
        if (other, group) != asked:
            asked, tries = (other, group), 0
        if tries == TRIES or known[other][group]:
            continue
        tries += 1
        if alike(one, other):
            known[other][group] = True
            found[other, group] = True


def _sharing(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of rows that share a key, the earlier row first, and how many keys each pair shares.

    Args:
        keys: (rows, keys of a row) integers.
    """
    rows, width = keys.shape
    order = np.argsort(keys, axis=None, kind="stable")
    key, row = keys.ravel()[order], order // max(width, 1)
    begins = np.ones(len(key), dtype=bool)
    begins[1:] = key[1:] != key[:-1]
    heads = np.maximum.accumulate(np.where(begins, np.arange(len(key)), 0))
    codes = []
    for distance in range(1, NEIGHBOURS + 1):
        place = np.flatnonzero(key[distance:] == key[:-distance])
        codes.append(row[place] * rows + row[place + distance])
    far = np.flatnonzero(np.arange(len(key)) - heads > NEIGHBOURS)
    codes.append(row[heads[far]] * rows + row[far])
    pairs, times = np.unique(np.concatenate(codes), return_counts=True)
    earlier, later = np.divmod(pairs, max(rows, 1))
    differ = earlier != later
    return earlier[differ], later[differ], times[differ]


# by shingles


def _band_keys(texts: Sequence[str]) -> np.ndarray:
    """(texts, BANDS) keys; texts that share one agree in BAND_WIDTH MinHash values."""
    parts = []
    for block in _blocks(texts):
        hashes, offsets = _hashed_shingles(block)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, num_perm=BANDS * BAND_WIDTH, seed=0)
        digests = np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(block), BANDS, BAND_WIDTH)
        keys = np.tile(np.arange(BANDS, dtype=np.uint64), (len(block), 1))
        for place in range(BAND_WIDTH):
            keys = _mixed(keys * _FACTOR + digests[:, :, place])
        parts.append(keys)
    return np.concatenate(parts)


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Runs of texts of bounded length in all, so that memory does not grow with the data."""
    begin, characters = 0, 0
    for end, text in enumerate(texts):
        if characters > _BLOCK_CHARACTERS:
            yield texts[begin:end]
            begin, characters = end, 0
        characters += len(text)
    yield texts[begin:]


def _hashed_shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """A hash for each run of SHINGLE characters of each text, flat, and the (texts + 1) places where texts begin."""
    padded = [text.ljust(SHINGLE, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.array([len(text) for text in padded], dtype=np.int64)
    inside = np.ones(len(codes), dtype=bool)
    for back in range(1, SHINGLE):
        inside[np.cumsum(lengths) - back] = False  # a run that begins here would reach into the next text
    hashes = np.zeros(len(codes) - SHINGLE + 1, dtype=np.uint64)
    for place in range(SHINGLE):
        hashes *= _FACTOR
        hashes += codes[place : place + len(hashes)]
    offsets = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)]).astype(np.uint64)
    return _mixed(hashes[inside[: len(hashes)]]), offsets


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """64-bit numbers whose every bit depends on every bit before."""
    numbers = (numbers ^ (numbers >> _SHIFT)) * _MIXER
    numbers = (numbers ^ (numbers >> _SHIFT)) * _MIXER
    return numbers ^ (numbers >> _SHIFT)


def _by_shingles(texts: Sequence[str]) -> Compare:
    @lru_cache(maxsize=_KEPT_SETS)
    def shingles(index: int) -> frozenset[str]:
        text = texts[index]
        return frozenset(text[place : place + SHINGLE] for place in range(max(1, len(text) - SHINGLE + 1)))

    def alike(one: int, other: int) -> bool:
        mine, theirs = shingles(one), shingles(other)
        shared = len(mine & theirs)
        return shared >= ALIKE * (len(mine) + len(theirs) - shared)

    return alike


# by rare words


def _bags_of_words(texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Which texts have enough words, and these words as numbers, punctuation aside."""
    vocabulary: dict[str, int] = {}
    where, bags = [], []
    for index, text in enumerate(texts):
        words = text.translate(_PUNCTUATION).split()
        if len(words) >= FEWEST_WORDS:
            where.append(index)
            bags.append([vocabulary.setdefault(word, len(vocabulary)) for word in words])
    return where, bags


def _rare_word_keys(bags: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Which bags have enough different words, and a key for every choice of four of the six rarest."""
    width = SHARED_RARE_WORDS + CHANGED_WORDS
    choices = list(combinations(range(width), SHARED_RARE_WORDS))
    words = np.fromiter(chain.from_iterable(bags), dtype=np.int64)
    if not len(words):
        return np.zeros(0, dtype=np.int64), np.zeros((0, len(choices)), dtype=np.uint64)
    bag_of = np.repeat(np.arange(len(bags)), [len(bag) for bag in bags])
    counts = np.bincount(words)
    rarity = np.empty(len(counts), dtype=np.int64)
    rarity[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    different = np.unique(bag_of * len(counts) + rarity[words])  # sorted by bag, then from rare to frequent
    bag, rank = np.divmod(different, len(counts))
    begin = np.searchsorted(bag, np.arange(len(bags) + 1))
    kept = np.flatnonzero(np.diff(begin) >= width)
    rarest = rank[begin[kept][:, None] + np.arange(width)].astype(np.uint64)
    keys = np.zeros((len(kept), len(choices)), dtype=np.uint64)
    for number, choice in enumerate(choices):
        for place in choice:
            keys[:, number] = _mixed(keys[:, number] * _FACTOR + rarest[:, place] + np.uint64(1))
    return kept, keys


def _by_words(bags: dict[int, list[int]]) -> Compare:
    def alike(one: int, other: int) -> bool:
        mine, theirs = Counter(bags[one]), Counter(bags[other])
        return (mine - theirs).total() <= CHANGED_WORDS and (theirs - mine).total() <= CHANGED_WORDS

    return alike
