"""No pair is compared twice, whichever lists it is in."""

from trunkfold.copies import comparison
from trunkfold.copies.evidence import compare
from trunkfold.copies.evidence_cache import EvidenceCache


def test_of_a_list_that_overlaps_an_earlier_one_only_new_pairs_are_compared(records, tmp_path, monkeypatch):
    compared = []

    def recording(*pair: object) -> object:
        compared.append(pair)
        return compare(*pair)

    monkeypatch.setattr(comparison, "compare", recording)
    for _ in range(2):  # in one search, and in a later one
        cache = EvidenceCache(records, range(8), tmp_path, 1)
        first, second = cache.compare([(0, 1), (0, 4)]), cache.compare([(0, 4), (1, 2), (0, 1)])
        assert list(second) == [(0, 4), (1, 2), (0, 1)]
        assert first == {pair: second[pair] for pair in first}
        assert len(compared) == 3
        assert len(cache.evidence) == 3
        assert second[0, 4] == compare(records[0], records[4], cache.statistics)
    assert cache.compare([(2, 3)])
    assert len(compared) == 4


def test_evidence_is_that_of_the_pair_in_any_block(records, tmp_path, monkeypatch):
    monkeypatch.setattr("trunkfold.copies.evidence_cache.PAIRS", 2)
    pairs = [(0, 1), (0, 5), (1, 2), (3, 6), (6, 7)]
    found = EvidenceCache(records, range(8), tmp_path, 1).compare(pairs)
    later = EvidenceCache(records, range(8), tmp_path, 1)
    assert len(list(tmp_path.iterdir())) == 3
    assert later.evidence == found
    assert found == {(one, other): compare(records[one], records[other], later.statistics) for one, other in pairs}
