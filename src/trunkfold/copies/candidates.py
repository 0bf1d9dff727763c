"""Candidate pairs of copies: photos with similar embeddings, and photos that share rare visual words.

The two fail for different copies: narrow crops share words, and photos without details have similar embeddings.
Each SIFT feature is assigned to the two nearest of 16,384 words, which are clusters of the photos' own features. By
words each photo is compared with all others unchanged and mirrored; embeddings hardly depend on that.

Sources: Sivic and Zisserman, "Video Google", 2003 (words and their weights); Nister and Stewenius, "Scalable
recognition with a vocabulary tree", 2006 (two levels); Philbin et al., "Lost in quantization", 2008 (two words each).
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from sklearn.cluster import MiniBatchKMeans
from sklearn.preprocessing import normalize
from tqdm.contrib.concurrent import thread_map

from trunkfold.copies.record import root_descriptors

BRANCHES = 128  # two-level tree: assigning a word takes 384 comparisons instead of 16,384
WORDS_PER_FEATURE = 2
SAMPLE_PHOTOS, SAMPLE = 2000, 100_000  # photos and features that are clustered into words
BY_WORDS, BY_EMBEDDING = 4, 16  # candidates per photo, most of which are never compared
ROWS = 256  # photos processed at once


class Vocabulary:
    """Visual words: a two-level clustering of descriptors.

    Attributes:
        cells: Cluster centres of the first level, of shape (branches, 128).
        words: Cluster centres of the second level, of shape (branches, branches, 128).
    """

    def __init__(self, sample: np.ndarray) -> None:
        """Cluster descriptors of shape (features, 128)."""
        branches = min(BRANCHES, len(sample))
        self.cells = _cluster(sample, branches)
        cell_of = _nearest(sample, self.cells, 1)[:, 0]
        self.words = np.stack([_divide(sample[cell_of == cell], branches) for cell in range(branches)])

    def __len__(self) -> int:
        return self.words.shape[0] * self.words.shape[1]

    def words_of(self, descriptors: np.ndarray) -> np.ndarray:
        """Return the word indices (features, 2) of descriptors (features, 128)."""
        cells = _nearest(descriptors, self.cells, min(WORDS_PER_FEATURE, len(self.cells)))
        words = np.empty_like(cells)
        for cell in np.unique(cells):
            inside = cells == cell
            word = _nearest(descriptors[inside.any(1)], self.words[cell], 1)[:, 0]
            words[inside] = cell * self.words.shape[1] + word
        return words


def find_candidates(records: Sequence[np.ndarray], embeddings: np.ndarray, workers: int) -> np.ndarray:
    """Find pairs of photos to compare in detail.

    Args:
        records: One `trunkfold.copies.record.RECORD` per photo.
        embeddings: Their projected embeddings, of shape (photos, dimensions).
        workers: Number of threads.

    Returns:
        int of shape (pairs, 3): sorted index pairs into `records`, smaller index first, and their rank: how many
        neighbours of one of the photos are closer, by words or by embeddings, whichever is least. Photos without
        features are in no pair.
    """
    return unique_pairs(share_words(records, workers), are_similar(records, embeddings, workers))


def unique_pairs(*found: np.ndarray) -> np.ndarray:
    """Join arrays of pairs and ranks (pairs, 3); sort the indices of each pair, and the pairs, with the lowest rank."""
    pairs = np.concatenate(found)
    pairs[:, :2].sort(axis=1)
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    return pairs[np.unique(pairs[:, :2], axis=0, return_index=True)[1]]


def are_similar(records: Sequence[np.ndarray], embeddings: np.ndarray, workers: int) -> np.ndarray:
    """Return pairs of photos with similar embeddings, and their ranks: (pairs, 3)."""
    featured = np.flatnonzero([record["count"] > 0 for record in records])
    embeddings = embeddings[featured]

    def neighbours(start: int) -> np.ndarray:
        similarity = embeddings[start : start + ROWS] @ embeddings.T
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -np.inf  # with itself
        found = _most_similar(similarity, start, BY_EMBEDDING, -np.inf)
        found[:, :2] = featured[found[:, :2]]
        return found

    starts = range(0, len(featured), ROWS)
    found = thread_map(neighbours, starts, max_workers=workers, leave=False, desc="similar photos")
    return np.concatenate([np.empty((0, 3), int), *found])


def share_words(records: Sequence[np.ndarray], workers: int) -> np.ndarray:
    """Return pairs of photos that share rare words, and their ranks: (pairs, 3)."""
    sample = _sample(records)
    if not len(sample):  # all photos are blank
        return np.empty((0, 3), int)
    vocabulary = Vocabulary(sample)
    starts = range(0, len(records), ROWS)
    options = {"max_workers": workers, "leave": False}

    def bags(start: int, mirrored: bool) -> sparse.csr_matrix:
        return bags_of_words(records[start : start + ROWS], vocabulary, mirrored)

    plain = sparse.vstack(thread_map(lambda start: bags(start, False), starts, desc="visual words", **options))
    photos_with_word = np.bincount(plain.indices, minlength=len(vocabulary))
    rarity = np.log((len(records) + 1) / photos_with_word.clip(1)).astype(np.float32)

    def weigh(bags: sparse.csr_matrix) -> sparse.csr_matrix:
        bags.data *= rarity[bags.indices]  # in place, because the bags of many photos take gigabytes
        return normalize(bags, copy=False)

    plain = weigh(plain)
    transposed = plain.T.tocsr()

    def neighbours(start: int) -> np.ndarray:
        rows = plain[start : start + ROWS]
        turned = weigh(bags(start, True))
        similarity = np.maximum((rows @ transposed).toarray(), (turned @ transposed).toarray())
        similarity[np.arange(rows.shape[0]), start + np.arange(rows.shape[0])] = 0  # with itself
        return _most_similar(similarity, start, BY_WORDS, 0)

    return np.concatenate(thread_map(neighbours, starts, desc="candidates", **options))


def bags_of_words(records: Sequence[np.ndarray], vocabulary: Vocabulary, mirrored: bool) -> sparse.csr_matrix:
    """Return the square roots of the word counts of photos: (photos, words)."""
    descriptors = [root_descriptors(record, mirrored) for record in records]
    words = vocabulary.words_of(np.concatenate(descriptors))
    photo = np.repeat(np.arange(len(records)), [words.shape[1] * len(own) for own in descriptors])
    ones = np.ones(len(photo), np.float32)
    bags = sparse.csr_matrix((ones, (photo, words.ravel())), (len(records), len(vocabulary)))
    return bags.sqrt()  # a word that fills half the photo is one observation, not a hundred


def _sample(records: Sequence[np.ndarray]) -> np.ndarray:
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(records))[:SAMPLE_PHOTOS]
    features = [root_descriptors(records[place], mirrored=bool(place % 2)) for place in chosen]
    features = np.concatenate([np.empty((0, 128), np.float32), *features])
    return features[rng.permutation(len(features))[:SAMPLE]]


def _most_similar(similarity: np.ndarray, start: int, count: int, least: float) -> np.ndarray:
    """Return row, column and rank of the `count` most similar columns of each row, above a similarity of `least`."""
    count = min(count, similarity.shape[1])
    columns = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    rows = np.arange(len(similarity))[:, None]
    columns = columns[rows, np.argsort(-similarity[rows, columns], axis=1, kind="stable")]
    pairs = np.stack(np.broadcast_arrays(start + rows, columns, np.arange(count)), axis=2)
    return pairs[similarity[rows, columns] > least]


def _cluster(descriptors: np.ndarray, clusters: int) -> np.ndarray:
    """Return cluster centres, with a fixed seed."""
    means = MiniBatchKMeans(clusters, init="random", n_init=1, max_iter=10, batch_size=4096, random_state=0)
    return means.fit(descriptors).cluster_centers_.astype(np.float32)


def _divide(members: np.ndarray, words: int) -> np.ndarray:
    """Return the centres of the second level; in a small cell, each member is a centre."""
    if len(members) > words:
        return _cluster(members, words)
    unused = np.full((words - len(members), 128), 9, np.float32)  # farther from any descriptor than its members
    return np.concatenate([members, unused])


def _nearest(descriptors: np.ndarray, centres: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the nearest centres, unordered: (descriptors, count)."""
    closeness = 2 * descriptors @ centres.T - (centres**2).sum(1)
    if count == 1:
        return closeness.argmax(1)[:, None]
    return np.argpartition(-closeness, count - 1, axis=1)[:, :count]
