import dataclasses

import pytest

from alchemy.errors import BadInput
from alchemy.settings import TrainOptions
from alchemy.training.base import PLAIN_TEMPLATE, load_base
from alchemy.training.dataset import IGNORED, Example, encode, encode_pair, plan_steps, to_tensors


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return load_base(tiny_base, "cpu").tokenizer


def examples(count: int) -> list[Example]:
    return [Example(tuple(range(1, 11 + number % 7)), 4) for number in range(count)]


def test_labels_cover_exactly_the_response_and_the_end_of_sequence(tokenizer, train_pairs):
    pair = train_pairs[0]
    example = encode_pair(tokenizer, pair)
    _, labels = to_tensors([example], "cpu")
    labeled = [label for label in labels[0].tolist() if label != IGNORED]
    assert tokenizer.decode(labeled[:-1]) == pair.response
    assert labeled[-1] == tokenizer.eos_token_id
    prompt = tokenizer.decode(example.ids[: example.response_start])
    assert prompt == f"<|start|>user\n{pair.instruction}<|end|>\n<|start|>assistant\n"


def test_padding_carries_no_label(tokenizer, train_pairs):
    short = encode_pair(tokenizer, train_pairs[0])
    long = encode_pair(tokenizer, dataclasses.replace(train_pairs[0], response="gannet " * 20))
    ids, labels = to_tensors([long, short], "cpu")
    assert ids.shape == (2, long.tokens)
    assert (labels[1, short.tokens :] == IGNORED).all()
    assert int((labels != IGNORED).sum()) == short.labeled + long.labeled


def test_pairs_over_max_length_are_left_out_and_counted(tokenizer, train_pairs):
    long = dataclasses.replace(train_pairs[0], response="gannet " * 200)
    encoded = encode(tokenizer, [*train_pairs[:3], long], max_length=100)
    assert (len(encoded.examples), encoded.left_out) == (3, 1)


def test_a_base_without_a_chat_template_gets_a_plain_one(tokenizer, train_pairs, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", PLAIN_TEMPLATE)
    example = encode_pair(tokenizer, train_pairs[0])
    prompt = tokenizer.decode(example.ids[: example.response_start])
    assert prompt == f"<|start|>### Instruction:\n{train_pairs[0].instruction}\n\n### Response:\n"


def test_every_example_is_seen_once_an_epoch():
    rows = examples(20)
    steps = plan_steps(rows, TrainOptions(epochs=2, batch_tokens=64), micro_tokens=40)
    seen = [example for step in steps for batch in step.batches for example in batch]
    assert sorted(example.ids for example in seen) == sorted([example.ids for example in rows] * 2)


def test_steps_and_micro_batches_keep_to_their_sizes():
    steps = plan_steps(examples(50), TrainOptions(epochs=1, batch_tokens=100), micro_tokens=40)
    assert max(step.tokens for step in steps) <= 100
    for step in steps:
        for batch in step.batches:
            assert len(batch) * max(example.tokens for example in batch) <= 40


def test_the_token_budget_ends_the_run():
    steps = plan_steps(examples(50), TrainOptions(epochs=9, max_tokens=200, batch_tokens=64), micro_tokens=64)
    assert 180 < sum(step.tokens for step in steps) <= 200


def test_an_example_over_every_budget_is_still_a_step():
    options = TrainOptions(max_tokens=100, batch_tokens=32, epochs=1)
    steps = plan_steps([Example(tuple(range(150)), 5)], options, micro_tokens=10)
    assert [step.tokens for step in steps] == [150]


def test_the_order_follows_from_the_seed():
    rows = [Example((number, *range(9)), 4) for number in range(30)]
    one, same, other = (
        plan_steps(rows, TrainOptions(seed=seed, batch_tokens=64), micro_tokens=64) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(BadInput, match="no training pair"):
        plan_steps([], TrainOptions(), micro_tokens=64)
