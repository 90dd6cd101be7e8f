"""How much the quant score should count: a sweep of its share, against none of it on the same questions.

    ALCHEMY_STORE=/tmp/store python benchmarks/quant_ablation.py

The store and the questions are those of `questions.py`, identifiers left out: what a number ranks first must
not matter for them. The search has the release's other weights.
"""

import argparse
import sys
from contextlib import closing
from dataclasses import asdict

from questions import open_searcher, questions_of, released

from alchemy.artifacts import Artifacts
from alchemy.errors import NotFound
from alchemy.retrieval.ablation import ablate_quant, render_ablation
from alchemy.retrieval.calibrate import judge
from alchemy.retrieval.evaluate import Question
from alchemy.settings import load_settings
from alchemy.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--each", type=int, default=90, help="questions of each kind (default 90)")
    arguments = parser.parse_args()
    settings = load_settings()
    artifacts = Artifacts(Store(settings.store_url, endpoint=settings.s3_endpoint), settings.cache)
    try:
        release = released(artifacts)
    except NotFound as error:
        sys.exit(f"{error}; run benchmarks/questions.py with --raw FOLDER first")
    made, _ = questions_of(artifacts, arguments.each)
    questions = [Question(one.text, one.document_ids) for one in made if one.kind != "identifiers"]
    with closing(open_searcher(artifacts, release, settings)) as searcher:
        judged = judge(searcher, questions, settings.search)
    print(f"index {release.index}, {release.weights}")
    swept = ablate_quant(judged, release.weights, settings.search.rerank)
    print("\n".join(render_ablation(asdict(swept))))


if __name__ == "__main__":
    main()
