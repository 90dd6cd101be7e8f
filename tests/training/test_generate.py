import threading

import pytest

from alchemy.errors import BadInput, NotFound
from alchemy.training.generate import AdapterModel
from alchemy.training.lora import train_lora
from alchemy.training.sampling import Sampling

QUESTION = [{"role": "user", "content": "What does ticket 7 say about gannet?"}]


@pytest.fixture
def model(tiny_base, adapter):
    return AdapterModel(tiny_base, {"general": adapter}, device="cpu")


@pytest.fixture(scope="module")
def other_adapter(tiny_base, train_pairs, lora, options, tmp_path_factory):
    """An adapter that answers otherwise: trained on one answer alone."""
    import dataclasses

    folder = tmp_path_factory.mktemp("other")
    pairs = [dataclasses.replace(pair, response="mailbot was moved.") for pair in train_pairs]
    train_lora(tiny_base, pairs, [], lora, options, device="cpu", folder=folder)
    return folder


def test_the_adapter_changes_what_the_base_says_and_leaves_the_base_alone(tiny_base, model):
    alone = AdapterModel(tiny_base, device="cpu").generate(QUESTION, Sampling(max_new_tokens=16))
    adapted = model.generate(QUESTION, Sampling(max_new_tokens=16), adapter="general")
    assert model.generate(QUESTION, Sampling(max_new_tokens=16)) == alone != adapted
    assert model.generate(QUESTION, Sampling(max_new_tokens=16), adapter="general") == adapted


def test_a_trained_answer_ends_by_itself(tiny_base, other_adapter):
    model = AdapterModel(tiny_base, {"other": other_adapter}, device="cpu")
    assert model.generate(QUESTION, Sampling(max_new_tokens=60), adapter="other") == "mailbot was moved."


def test_the_stream_is_the_text_in_pieces(model):
    pieces = list(model.stream(QUESTION, Sampling(max_new_tokens=16), adapter="general"))
    assert len(pieces) > 3
    assert "".join(pieces) == model.generate(QUESTION, Sampling(max_new_tokens=16), adapter="general")


def test_swapping_an_adapter_keeps_the_base_object(model, other_adapter):
    before = model.base.model
    weights = before.get_input_embeddings().weight
    model.put("general", other_adapter)
    assert model.generate(QUESTION, Sampling(max_new_tokens=60), adapter="general") == "mailbot was moved."
    assert model.base.model is before
    assert before.get_input_embeddings().weight is weights
    assert list(model.adapters) == ["general"]


def test_a_stream_keeps_the_adapter_it_began_with(model, other_adapter):
    whole = model.generate(QUESTION, Sampling(max_new_tokens=16), adapter="general")
    stream = model.stream(QUESTION, Sampling(max_new_tokens=16), adapter="general")
    first = next(stream)
    model.put("general", other_adapter)
    assert model.generate(QUESTION, Sampling(max_new_tokens=60), adapter="general") == "mailbot was moved."
    assert first + "".join(stream) == whole


def test_adapters_serve_side_by_side(model, other_adapter):
    general = model.generate(QUESTION, Sampling(max_new_tokens=16), adapter="general")
    model.put("other", other_adapter)
    answers = {}

    def ask(name):
        answers[name] = model.generate(QUESTION, Sampling(max_new_tokens=16), adapter=name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("general", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {"general": general, "other": "mailbot was moved."}


def test_removing_the_last_adapter_leaves_the_base(tiny_base, model, adapter):
    alone = model.generate(QUESTION, Sampling(max_new_tokens=16))
    adapted = model.generate(QUESTION, Sampling(max_new_tokens=16), adapter="general")
    model.remove("general")
    assert model.generate(QUESTION, Sampling(max_new_tokens=16)) == alone
    with pytest.raises(NotFound, match="no adapter general"):
        model.stream(QUESTION, adapter="general")
    model.put("again", adapter)
    assert model.generate(QUESTION, Sampling(max_new_tokens=16), adapter="again") == adapted


def test_a_refused_adapter_changes_nothing(model, tmp_path):
    adapted = model.generate(QUESTION, Sampling(max_new_tokens=16), adapter="general")
    with pytest.raises(BadInput):
        model.put("general", tmp_path)
    assert model.generate(QUESTION, Sampling(max_new_tokens=16), adapter="general") == adapted


def test_a_closed_stream_and_a_deadline_end_the_text(model):
    stream = model.stream(QUESTION, Sampling(max_new_tokens=50))
    assert next(stream)
    stream.close()
    assert (model.running, model.waiting) == (0, 0)
    assert list(model.stream(QUESTION, Sampling(max_new_tokens=50), deadline_s=0)) == []


def test_sampling_follows_its_seed(model):
    texts = [
        model.generate(QUESTION, Sampling(max_new_tokens=16, temperature=1.5, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_prompt_without_room_for_an_answer_is_refused(model):
    with pytest.raises(BadInput, match="do not fit into 256"):
        model.stream([{"role": "user", "content": "gannet " * 100}], Sampling(max_new_tokens=200))
