import dataclasses
import math

import pytest

from alchemy.training.base import PLAIN_TEMPLATE, load_base
from alchemy.training.dataset import (
    IGNORED,
    Example,
    Step,
    encode,
    encode_pair,
    encode_texts,
    lay_out,
    plan_steps,
    sample_texts,
    to_tensors,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return load_base(tiny_base, "cpu").tokenizer


def examples(count: int) -> list[Example]:
    return [Example(tuple(range(1, 11 + number % 7)), 4) for number in range(count)]


def plan(rows: list[Example], micro_tokens: int, **changes) -> list[Step]:
    arguments = {"tokens": 20_000, "epochs": 1, "batch_tokens": 64, "seed": 17} | changes
    return plan_steps(rows, micro_tokens, **arguments)


def test_labels_cover_exactly_the_response_and_the_end_of_sequence(tokenizer, train_pairs):
    pair = train_pairs[0]
    example = encode_pair(tokenizer, pair)
    _, _, labels = to_tensors([(example,)], "cpu")
    labeled = [label for label in labels[0].tolist() if label != IGNORED]
    assert tokenizer.decode(labeled[:-1]) == pair.response
    assert labeled[-1] == tokenizer.eos_token_id
    prompt = tokenizer.decode(example.ids[: example.response_start])
    assert prompt == f"<|start|>user\n{pair.instruction}<|end|>\n<|start|>assistant\n"


def test_padding_carries_no_label(tokenizer, train_pairs):
    short = encode_pair(tokenizer, train_pairs[0])
    long = encode_pair(tokenizer, dataclasses.replace(train_pairs[0], response="gannet " * 20))
    ids, _, labels = to_tensors([(long,), (short,)], "cpu")
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


def test_the_examples_of_a_row_count_their_positions_from_zero():
    row = (Example((5, 6, 7), 1), Example((8, 9), 1))
    ids, positions, labels = to_tensors([row, (Example((3, 4, 5, 6, 7, 8), 4),)], "cpu")
    assert ids.tolist() == [[5, 6, 7, 8, 9, 0], [3, 4, 5, 6, 7, 8]]
    assert positions.tolist() == [[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 5]]
    assert labels[0].tolist() == [IGNORED, 6, 7, IGNORED, 9, IGNORED]


def test_packed_rows_keep_to_their_width_and_are_nearly_full():
    rows = examples(70)
    batches = lay_out(rows, micro_tokens=200, row_tokens=50)
    widths = [sum(example.tokens for example in row) for batch in batches for row in batch]
    assert max(widths) <= 50
    assert sum(widths) == sum(example.tokens for example in rows)
    assert len(widths) <= 1 + math.ceil(sum(widths) / 50)
    for batch in batches:
        assert len(batch) * max(sum(example.tokens for example in row) for row in batch) <= 200


def test_an_example_longer_than_a_row_has_its_own():
    long = Example(tuple(range(60)), 4)
    batches = lay_out([long, *examples(4)], micro_tokens=100, row_tokens=50)
    assert batches[0] == ((long,),)


def test_a_text_is_learnt_from_whole_in_pieces_with_loss_on_all_but_the_first_token(tokenizer):
    text = "gannet was stopped. " * 20
    pieces = list(encode_texts(tokenizer, [text], max_length=32))
    ids = [token for piece in pieces for token in piece.ids]
    assert tokenizer.decode(ids[:-1]) == text
    assert ids[-1] == tokenizer.eos_token_id
    assert max(piece.tokens for piece in pieces) == 32
    assert all(piece.labeled == piece.tokens - 1 > 0 for piece in pieces)


def test_the_sampled_texts_do_not_depend_on_the_order_and_fill_the_budget():
    texts = [f"text {number} " * 10 for number in range(200)]
    one, other = sample_texts(texts, 1000), sample_texts(reversed(texts), 1000)
    assert one == other != texts[: len(one)]
    assert 1000 <= sum(map(len, one)) < 1000 + max(map(len, texts))


def test_every_example_is_seen_once_an_epoch():
    rows = examples(20)
    steps = plan(rows, micro_tokens=40, epochs=2)
    seen = [example for step in steps for example in step.examples]
    assert sorted(example.ids for example in seen) == sorted([example.ids for example in rows] * 2)


def test_steps_and_micro_batches_keep_to_their_sizes():
    steps = plan(examples(50), micro_tokens=40, batch_tokens=100)
    assert max(step.tokens for step in steps) <= 100
    for step in steps:
        for batch in step.batches:
            assert len(batch) * max(sum(example.tokens for example in row) for row in batch) <= 40


def test_the_token_budget_ends_the_run():
    steps = plan(examples(50), micro_tokens=64, epochs=9, tokens=200)
    assert 180 < sum(step.tokens for step in steps) <= 200


def test_an_example_over_every_budget_is_still_a_step():
    steps = plan([Example(tuple(range(150)), 5)], micro_tokens=10, tokens=100, batch_tokens=32)
    assert [step.tokens for step in steps] == [150]


def test_the_order_follows_from_the_seed():
    rows = [Example((number, *range(9)), 4) for number in range(30)]
    one, same, other = (plan(rows, micro_tokens=64, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other
