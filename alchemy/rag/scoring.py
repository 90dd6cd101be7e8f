"""The numbers by which the chunks of the RAG API are ordered. Pure functions.

    dense     cosine of question and chunk                                         in [-1, 1]
    sparse    share of what the question's words could score, `sparse_share`       in [0, 1]
    hybrid    0.7 max(dense, 0) + 0.3 sparse                                       in [0, 1]
    rerank    0.6 score + 0.4 overlap of the words (Jaccard)

All are on an absolute scale, as in `alchemy.retrieval.fuse`: dividing by the best chunk's score instead
would make the best of a bad lot look perfect.
"""

import math

from alchemy.rag.hashing import SparseVector
from alchemy.text.terms import terms

DENSE_SHARE = 0.7
LEXICAL_SHARE = 0.4


def hybrid(cosine: float, sparse: float) -> float:
    """Dense and sparse evidence of one chunk as one score."""
    return DENSE_SHARE * max(cosine, 0.0) + (1 - DENSE_SHARE) * sparse


def sparse_share(score: float, question: SparseVector, chunks: int) -> float:
    """Qdrant's sparse score as a share of a chunk's that alone holds every word of the question, once each.

    That score is the sum of the question's weights times the largest inverse frequency in a collection of
    so many chunks, ln(1 + (N - 1 + 0.5) / (1 + 0.5)). Words that several chunks hold add less; words that
    hash alike may subtract, and a chunk that repeats them would get more: both ends are cut.
    """
    attainable = sum(map(abs, question.values)) * math.log1p((max(chunks, 1) - 0.5) / 1.5)
    return min(max(score / attainable, 0.0), 1.0) if attainable else 0.0


def overlap(question: str, text: str) -> float:
    """Jaccard similarity of the words of both: shared ones by all; 0 where there are none."""
    asked, said = terms(question), terms(text)
    return len(asked & said) / len(asked | said) if asked or said else 0.0


def reranked(score: float, lexical: float) -> float:
    """The order of the answer's sources, of the vectors' score and the words' `overlap`."""
    return (1 - LEXICAL_SHARE) * score + LEXICAL_SHARE * lexical
