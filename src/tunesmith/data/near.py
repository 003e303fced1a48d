"""Inputs that are nearly the same: found by MinHash and by rare words, proven on the texts themselves.

Two inputs are near copies if their sets of character 5-grams have a Jaccard index of at least 0.8, or if both have
twelve to sixty words and at most two words of each are missing in the other. The first suits long texts with many small
edits, and short ones that differ in punctuation. The second suits sentences: there a single changed word breaks ten of
sixty 5-grams, and two bring the index to a half, where texts about one subject begin to look alike. Where a text has
more words than that, two changed ones leave the index above 0.8.

Candidates come from hashes, so a few near copies may be missed (MinHash: Broder 1997; the rare words miss none: it is
the prefix filter of Chaudhuri, Ganti and Kaushik 2006). Each candidate is then compared word by word, so that no hash
can raise a false alarm. Of very long inputs the first characters are compared.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from rensa import RMinHash

SHINGLE = 5
ALIKE = 0.8
FEWEST_WORDS, MOST_WORDS = 12, 60
CHANGED_WORDS = 2
LONGEST_CHARACTERS = 10_000

HASHES, BANDS, BAND_WIDTH = 40, 10, 4
"""A pair of index 0.8 shares a band of four in ten with probability 1 - (1 - 0.8^4)^10 = 0.995; one of 0.1 with
0.001, so that few pairs need comparing. More hashes cost time: turning them into an array takes longest of all."""

LEAST_ESTIMATE = 0.6
"""Pairs that agree in a smaller share of the MinHash values are not compared: for an index of 0.8 that is 3.2 standard
deviations away."""

SHARED_RARE_WORDS = 4
"""Near copies share four of the six rarest words of each, since at most two words are missing."""

NEIGHBOURS = 8
"""In a crowd of inputs with one key, each meets the first and so many next: a crowd of n costs n, not n squared."""

TRIES = 8
"""So many of an input's likeliest candidates are compared."""

_BLOCK_CHARACTERS = 2_000_000
_BLOCK_PAIRS = 50_000
_KEPT_SETS = 256
_FACTOR, _MIXER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)
_PLACE_FACTORS = np.random.default_rng(0).integers(1, 2**63, 64, dtype=np.uint64) | np.uint64(1)
_MARKS = string.punctuation + "“”‘’«»„…–—¿¡"
_WITHOUT_MARKS = str.maketrans("", "", _MARKS)
_IS_MARK = np.zeros(0x2100, dtype=bool)
_IS_MARK[[ord(mark) for mark in _MARKS]] = True

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
        _mark(found, *_alike_by_estimate(texts), group_of, _by_shingles(texts))
        where, sizes, words = _sentences(texts)
        kept, keys = _rare_word_keys(sizes, words)
        earlier, later, times = _sharing(keys)
        near_in_size = np.abs(sizes[kept[earlier]] - sizes[kept[later]]) <= CHANGED_WORDS
        places, earlier, later = where[kept], earlier[near_in_size], later[near_in_size]
        _mark(found, places[earlier], places[later], times[near_in_size], group_of, _by_words(texts))
    return found


def _mark(
    found: np.ndarray, earlier: np.ndarray, later: np.ndarray, likely: np.ndarray, group_of: np.ndarray, alike: Compare
) -> None:
    """Set `found` where a candidate proves true, beginning with the likeliest of each text and group."""
    groups = group_of[earlier]
    order = np.lexsort((-likely, groups, later))
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
    pairs, times = _distinct(np.concatenate(codes))
    earlier, later = np.divmod(pairs, max(rows, 1))
    differ = earlier != later
    return earlier[differ], later[differ], times[differ]


def _distinct(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different numbers in order, and how often each occurs. (`np.unique` takes five times as long.)"""
    numbers = np.sort(numbers)
    first = np.ones(len(numbers), dtype=bool)
    first[1:] = numbers[1:] != numbers[:-1]
    begins = np.flatnonzero(first)
    return numbers[begins], np.diff(begins, append=len(numbers))


# by shingles


def _alike_by_estimate(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of texts, the earlier first, whose MinHash values say that they may be alike, and the shares that agree."""
    digests = _digests(texts)
    keys = np.tile(np.arange(BANDS, dtype=np.uint64), (len(texts), 1))
    for place in range(BAND_WIDTH):
        keys = _mixed(keys * _FACTOR + digests[:, place : BANDS * BAND_WIDTH : BAND_WIDTH])
    earlier, later, _ = _sharing(keys)
    estimates = np.zeros(len(earlier))
    for begin in range(0, len(earlier), _BLOCK_PAIRS):
        block = slice(begin, begin + _BLOCK_PAIRS)
        estimates[block] = (digests[earlier[block]] == digests[later[block]]).mean(axis=1)
    likely = estimates >= LEAST_ESTIMATE
    return earlier[likely], later[likely], estimates[likely]


def _digests(texts: Sequence[str]) -> np.ndarray:
    """(texts, HASHES) MinHash values of their shingles."""
    parts = []
    for block in _blocks(texts):
        hashes, offsets = _hashed_shingles(block)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, num_perm=HASHES, seed=0)
        parts.append(np.array(matrix.to_rows(), dtype=np.uint32))
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
    def shingles(index: int) -> set[str]:
        text = texts[index]
        return {text[place : place + SHINGLE] for place in range(max(1, len(text) - SHINGLE + 1))}

    def alike(one: int, other: int) -> bool:
        mine, theirs = shingles(one), shingles(other)
        shared = len(mine & theirs)
        return shared >= ALIKE * (len(mine) + len(theirs) - shared)

    return alike


# by rare words


def _sentences(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which texts are neither too short nor too long to be compared by words, how many words each has, and a hash of
    each of these words, flat."""
    where, sizes, words = [], [], []
    begin = 0
    for block in _blocks(texts):
        counts, hashes = _hashed_words(block)
        fits = (counts >= FEWEST_WORDS) & (counts <= MOST_WORDS)
        where.append(begin + np.flatnonzero(fits))
        sizes.append(counts[fits])
        words.append(hashes[np.repeat(fits, counts)])
        begin += len(block)
    return np.concatenate(where), np.concatenate(sizes), np.concatenate(words)


def _hashed_words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """How many words each text has, and a hash of each word, flat. Punctuation is left out as in `_words`."""
    codes = np.frombuffer(" ".join([*texts, ""]).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    text_of = np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts])
    written = ~_IS_MARK[np.minimum(codes, len(_IS_MARK) - 1)]
    codes, text_of = codes[written], text_of[written]
    inside = codes > ord(" ")
    starts = np.flatnonzero(inside & np.concatenate([[True], ~inside[:-1]]))
    if not len(starts):
        return np.zeros(len(texts), dtype=np.int64), np.zeros(0, dtype=np.uint64)
    lengths = np.diff(starts, append=len(codes))
    places = np.arange(starts[0], len(codes)) - np.repeat(starts, lengths)
    summands = codes[starts[0] :] * _PLACE_FACTORS[places % len(_PLACE_FACTORS)]
    summands[~inside[starts[0] :]] = 0
    hashes = _mixed(np.add.reduceat(summands, starts - starts[0]))
    return np.bincount(text_of[starts], minlength=len(texts)), hashes


def _rare_word_keys(sizes: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which texts have enough different words, and a key for every choice of four of the six rarest.

    Args:
        sizes: (texts,) how many words each has.
        words: hashes of all words, flat.
    """
    width = SHARED_RARE_WORDS + CHANGED_WORDS
    choices = list(combinations(range(width), SHARED_RARE_WORDS))
    vocabulary, counts = _distinct(words)
    rarity = np.empty(len(counts), dtype=np.int64)
    rarity[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    ranks = rarity[np.searchsorted(vocabulary, words)]
    most = max(len(counts), 1)
    different, _ = _distinct(np.repeat(np.arange(len(sizes)), sizes) * most + ranks)  # by text, then the rarest first
    text, rank = np.divmod(different, most)
    begin = np.searchsorted(text, np.arange(len(sizes) + 1))
    kept = np.flatnonzero(np.diff(begin) >= width)
    rarest = vocabulary[np.argsort(rarity)][rank[begin[kept][:, None] + np.arange(width)]]
    keys = np.zeros((len(kept), len(choices)), dtype=np.uint64)
    for number, choice in enumerate(choices):
        for place in choice:
            keys[:, number] = _mixed(keys[:, number] * _FACTOR + rarest[:, place])
    return kept, keys


def _words(text: str) -> list[str]:
    return text.translate(_WITHOUT_MARKS).split()


def _by_words(texts: Sequence[str]) -> Compare:
    @lru_cache(maxsize=_KEPT_SETS)
    def bag(index: int) -> Counter[str]:
        return Counter(_words(texts[index]))

    def alike(one: int, other: int) -> bool:
        mine, theirs = bag(one), bag(other)
        if max(len(mine.keys() - theirs.keys()), len(theirs.keys() - mine.keys())) > CHANGED_WORDS:
            return False
        return max((mine - theirs).total(), (theirs - mine).total()) <= CHANGED_WORDS

    return alike
