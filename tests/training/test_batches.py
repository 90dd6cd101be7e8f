"""Many texts at once: nobody sees who else is in the batch, in any bit."""

import dataclasses
import random

import pytest

from alchemy.errors import BadInput, Conflict
from alchemy.training.base import compare_attention, pick_dtype
from alchemy.training.generate import AdapterModel, Bounds
from alchemy.training.sampling import Sampling
from tests.tiny_models import SYSTEMS, make_adapter

REAL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def adapters(tiny_base, tmp_path_factory):
    """Four adapters, one of another rank."""
    root = tmp_path_factory.mktemp("adapters")
    return {
        f"a{seed}": make_adapter(tiny_base, root / f"a{seed}", seed=seed, rank=8 if seed == 3 else 4)
        for seed in range(4)
    }


@pytest.fixture(scope="module")
def model(tiny_base, adapters):
    return AdapterModel(tiny_base, adapters, device="cpu", bounds=Bounds(rows=8))


def ask(number, words=1):
    text = f"What does ticket {number} say about {SYSTEMS[number % len(SYSTEMS)]}?" + " moved" * words
    return [{"role": "user", "content": text}]


def finish(model, *texts):
    """Plays until these texts are through; what they say."""
    while any(text.finish is None for text in texts):
        model.play()
    return ["".join(text.pieces) for text in texts]


def chance(seed):
    return random.Random(seed)  # noqa: S311


def random_request(chance):
    sampling = Sampling(
        max_new_tokens=chance.randint(1, 40),
        temperature=chance.choice([0.0, 0.0, 0.8, 1.5]),
        top_p=chance.choice([1.0, 0.9]),
        top_k=chance.choice([0, 20]),
        repetition_penalty=chance.choice([1.0, 1.3]),
        seed=chance.randint(0, 9),
    )
    adapter = chance.choice([None, "a0", "a1", "a2", "a3"])
    return ask(chance.randint(0, 99), chance.randint(0, 24)), sampling, adapter


def mix(model, chance, count):
    """Requests that come and go at random rounds, some of which are canceled: [(request, text)]."""
    begun = []
    for request in (random_request(chance) for _ in range(count)):
        messages, sampling, adapter = request
        begun.append((request, model.submit(messages, sampling, adapter=adapter)))
        for _ in range(chance.randint(0, 4)):
            model.play()
        if chance.random() < 0.15:
            begun[-1][1].canceled = True
    while model.waiting or model.running:
        model.play()
    return [(request, text) for request, text in begun if text.finish != "canceled"]


@pytest.mark.parametrize("seed", range(6))
def test_a_text_depends_on_its_own_request_alone(model, seed):
    for (messages, sampling, adapter), text in mix(model, chance(seed), 24):
        alone = model.submit(messages, sampling, adapter=adapter)
        assert finish(model, alone) == ["".join(text.pieces)]
        assert (alone.finish, alone.tokens) == (text.finish, text.tokens)


def test_the_logits_of_a_row_are_the_same_in_every_bit_in_any_company(model, monkeypatch):
    seen = {}
    step = model._decoder.step

    def noting(tokens, slots):
        texts = [model._running[row] for row in model._decoder.slots.rows]
        logits = step(tokens, slots)
        for text, row in zip(texts, logits, strict=True):
            seen.setdefault(text, []).append(row.clone())
        return logits

    monkeypatch.setattr(model._decoder, "step", noting)
    texts = mix(model, chance(7), 24)
    for (messages, sampling, adapter), text in texts:
        alone = model.submit(messages, sampling, adapter=adapter)
        finish(model, alone)
        for here, there in zip(seen.get(alone, []), seen.get(text, []), strict=True):
            assert here.equal(there)
    assert len(texts) > 10


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_real_base_says_the_same_in_any_company(models_folder, monkeypatch, precision):
    import torch

    monkeypatch.setattr("alchemy.training.base.pick_dtype", lambda _: getattr(torch, precision))
    model = AdapterModel(REAL, device="cpu", models=models_folder, bounds=Bounds(rows=5))
    questions = [[{"role": "user", "content": f"Say something about {word}."}] for word in SYSTEMS]
    short = Sampling(max_new_tokens=4)
    together = finish(model, *(model.submit(question, short) for question in questions))
    assert together == [model.generate(question, short) for question in questions]
    assert model._decoder.tile <= 4


def test_adapters_beside_each_other_give_what_peft_gives_alone(model, tiny_base, adapters):
    import torch
    from peft import PeftModel

    from alchemy.training.base import load_base, quiet_peft
    from alchemy.training.dataset import encode_prompt

    texts = [model.submit(ask(1), Sampling(max_new_tokens=8), adapter=name) for name in adapters]
    said = finish(model, *texts)
    base = load_base(tiny_base, "cpu")
    prompt = torch.tensor([encode_prompt(base.tokenizer, ask(1))])
    for name, text in zip(adapters, said, strict=True):
        with quiet_peft(), base.precision():
            alone = PeftModel.from_pretrained(base.model, str(adapters[name]))
            told = alone.generate(input_ids=prompt, max_new_tokens=8, do_sample=False)
            alone.unload()
        assert text == base.tokenizer.decode(told[0, prompt.shape[1] :], skip_special_tokens=True)
    assert len(set(said)) == len(adapters)


def test_who_joins_and_leaves_makes_nobody_be_prefilled_again(model):
    long = model.submit(ask(1), Sampling(max_new_tokens=40, temperature=1.0))
    prefilled = model.play().prefilled
    for number in range(5):
        other = model.submit(ask(number), Sampling(max_new_tokens=2))
        prefilled += model.play().prefilled
        finish(model, other)
    assert long.finish is None or long.tokens > 5
    finish(model, long)
    assert prefilled == len(long.prompt) + sum(len(model_prompt(model, number)) for number in range(5))


def model_prompt(model, number):
    from alchemy.training.dataset import encode_prompt

    return encode_prompt(model.base.tokenizer, ask(number))


def test_a_long_prompt_holds_the_running_ones_up_by_one_chunk_a_token(tiny_base, monkeypatch):
    monkeypatch.setattr("alchemy.training.decoding.CHUNK", 32)
    model = AdapterModel(tiny_base, device="cpu", bounds=Bounds(rows=4))
    running = model.submit(ask(1), Sampling(max_new_tokens=60, temperature=2.0))
    finish_prefill(model, running)
    long = model.submit(ask(2, words=30), Sampling(max_new_tokens=4))
    assert len(long.prompt) > 64
    while not long.tokens and running.finish is None:
        before = running.tokens
        assert model.play().prefilled <= 32
        assert running.finish is not None or running.tokens == before + 1


def finish_prefill(model, text):
    while not text.tokens and text.finish is None:
        model.play()


def test_memory_follows_the_requests_and_its_bound_makes_them_wait(tiny_base):
    token = 2 * 2 * 2 * 16 * pick_dtype("cpu").itemsize  # layers, keys and values, heads, their size
    model = AdapterModel(tiny_base, device="cpu", bounds=Bounds(rows=8, bytes=4 * 64 * token))
    texts = [model.submit(ask(n), Sampling(max_new_tokens=20, temperature=2.0)) for n in range(12)]
    most = 0
    while any(text.finish is None for text in texts):
        model.play()
        most = max(most, model.kv_bytes)
    assert all(text.finish in ("stop", "length") for text in texts)
    assert 0 < most <= 4 * 64 * token
    with pytest.raises(BadInput, match="do not fit into"):
        model.submit(ask(1), Sampling(max_new_tokens=231))


def test_a_canceled_text_frees_its_row_and_its_adapter(model, adapters, tiny_base, tmp_path):
    model.put("passing", adapters["a0"])
    text = model.submit(ask(1), Sampling(max_new_tokens=60, temperature=2.0), adapter="passing")
    waiting = model.submit(ask(2), Sampling(max_new_tokens=60), adapter="passing")
    model.play()
    model.remove("passing")
    text.canceled = waiting.canceled = True
    model.play()
    assert (text.finish, waiting.finish) == ("canceled", "canceled")
    assert (model.running, model.waiting) == (0, 0)
    slots = model._decoder.adapters
    assert len(slots._free) == slots._slots - len(adapters)


def test_an_answer_that_is_swapped_under_keeps_its_version_and_the_next_has_the_new_one(model, adapters):
    sampling = Sampling(max_new_tokens=24)
    old, new = (model.generate(ask(5), sampling, adapter=name) for name in ("a0", "a1"))
    model.put("swapped", adapters["a0"])
    before = [model.submit(ask(5), sampling, adapter="swapped") for _ in range(3)]
    model.play()
    model.put("swapped", adapters["a1"])
    after = [model.submit(ask(5), sampling, adapter="swapped") for _ in range(3)]
    assert finish(model, *before, *after) == [old] * 3 + [new] * 3
    model.remove("swapped")


def test_of_two_swaps_that_race_one_wins_and_the_other_is_told(model, adapters):
    first = model.put("raced", adapters["a0"], expected=None)
    with pytest.raises(Conflict, match="raced is at"):
        model.put("raced", adapters["a1"], expected=None)
    second = model.put("raced", adapters["a1"], expected=first)
    with pytest.raises(Conflict):
        model.put("raced", adapters["a2"], expected=first)
    with pytest.raises(Conflict):
        model.remove("raced", expected=first)
    assert model.adapters["raced"] == second
    model.remove("raced", expected=second)


def test_adapters_that_are_not_plain_lora_or_do_not_fit_are_refused(model, tiny_base, tmp_path):
    import safetensors.torch as files

    with pytest.raises(BadInput, match="use_dora"):
        model.put("x", make_adapter(tiny_base, tmp_path / "dora", seed=1, use_dora=True))
    folder = make_adapter(tiny_base, tmp_path / "broken", seed=1)
    factors = files.load_file(folder / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    files.save_file({k: v for k, v in factors.items() if k != name}, folder / "adapter_model.safetensors")
    with pytest.raises(BadInput, match=r"does not fit the base model at model\.layers\.1\.self_attn\.q_proj"):
        model.put("x", folder)
    layer = "layers.0.mlp.up_proj"
    files.save_file(
        {k: v for k, v in factors.items() if layer not in k}, folder / "adapter_model.safetensors"
    )
    with pytest.raises(BadInput, match="1 layers of the adapter are missing"):
        model.put("x", folder)
    assert "x" not in model.adapters


def test_stop_strings_end_the_text_before_them_even_across_pieces(model):
    whole = model.generate(ask(1), Sampling(max_new_tokens=30))
    stop = whole[5:8]
    text = model.submit(ask(1), Sampling(max_new_tokens=30, stop=("never said", stop)))
    assert finish(model, text) == [whole[: whole.index(stop)]]
    assert text.finish == "stop"
    held_back = Sampling(max_new_tokens=30, stop=(whole[-2:] + "never said",))
    assert model.generate(ask(1), held_back) == whole


def test_fused_attention_that_gives_wrong_numbers_is_turned_off_and_named():
    import torch

    fused = torch.nn.functional.scaled_dot_product_attention
    assert compare_attention("cpu", fused) is None
    before = torch.backends.cuda.flash_sdp_enabled()
    try:
        problem = compare_attention("cpu", lambda *a, **k: fused(*a, **k) + 1)
        assert problem is not None
        assert "gives other results" in problem
        assert not torch.backends.cuda.flash_sdp_enabled()
    finally:
        for backend in ("flash", "mem_efficient", "cudnn"):
            getattr(torch.backends.cuda, f"enable_{backend}_sdp")(before)


def test_sampling_out_of_bounds_is_refused():
    for wrong in (
        {"top_p": 0.0},
        {"temperature": -1.0},
        {"repetition_penalty": 1e-38},
        {"max_new_tokens": 0},
        {"stop": ("",)},
    ):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            dataclasses.replace(Sampling(), **wrong)


def run_out_at(monkeypatch, call, *, dimensions):
    """Lets the so-manieth tensor of so many dimensions that is asked for find no memory."""
    import torch

    zeros, left = torch.zeros, [call]

    def sometimes(*arguments, **options):
        left[0] -= len(arguments) == dimensions
        if left[0] == 0:
            monkeypatch.undo()
            raise torch.OutOfMemoryError("no memory left")
        return zeros(*arguments, **options)

    monkeypatch.setattr(torch, "zeros", sometimes)


@pytest.mark.parametrize("call", [1, 2, 4])
def test_memory_that_runs_out_while_a_width_grows_is_asked_for_again_by_the_next(
    tiny_base, monkeypatch, call
):
    model = AdapterModel(tiny_base, device="cpu", bounds=Bounds(rows=8))
    sampling = Sampling(max_new_tokens=150, temperature=3.0, stop=("\x00never",))  # of a width of its own
    run_out_at(monkeypatch, call, dimensions=4)
    failed = model.submit(ask(1), sampling)
    with pytest.raises(RuntimeError, match="no memory left"):
        finish(model, failed)
    model.abandon()
    assert failed.finish == "canceled"
    texts = [model.submit(ask(n), sampling) for n in range(5)]
    assert finish(model, *texts) == [model.generate(ask(n), sampling) for n in range(5)]


def test_memory_that_runs_out_while_others_run_leaves_them_what_they_have(tiny_base, monkeypatch):
    model = AdapterModel(tiny_base, device="cpu", bounds=Bounds(rows=8))
    sampling = Sampling(max_new_tokens=30, temperature=1.0)
    alone = [model.generate(ask(n), sampling) for n in range(6)]
    running = model.submit(ask(0), sampling)
    finish_prefill(model, running)
    # More rows than the pool has; one layer of two grows.
    others = [model.submit(ask(n), sampling) for n in range(1, 6)]
    run_out_at(monkeypatch, 3, dimensions=4)
    with pytest.raises(RuntimeError, match="no memory left"):
        finish(model, *others)
    assert finish(model, running, *others) == alone


@pytest.mark.parametrize("call", [1, 2, 3])
def test_memory_that_runs_out_while_an_adapter_is_loaded_leaves_the_others_as_they_were(
    tiny_base, adapters, monkeypatch, call
):
    few = {name: adapters[name] for name in ("a0", "a1")}
    model = AdapterModel(tiny_base, few, device="cpu")
    sampling = Sampling(max_new_tokens=12)
    said = {name: model.generate(ask(2), sampling, adapter=name) for name in few}
    run_out_at(monkeypatch, call, dimensions=3)
    with pytest.raises(RuntimeError, match="no memory left"):
        model.put("a3", adapters["a3"])  # of a higher rank, and there is no slot free
    assert {name: model.generate(ask(2), sampling, adapter=name) for name in few} == said
    model.put("a3", adapters["a3"])
    assert {name: model.generate(ask(2), sampling, adapter=name) for name in few} == said


def test_a_text_whose_row_cannot_be_filled_is_abandoned_with_the_others(model, monkeypatch):
    def fail(row, cache):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(model._decoder.slots, "fill", fail)
    text = model.submit(ask(1), Sampling(max_new_tokens=4), deadline_s=600)
    with pytest.raises(RuntimeError, match="no memory left"):
        model.play()
    model.abandon()
    assert text.finish == "canceled"
    assert (model.running, model.waiting) == (0, 0)


def test_every_text_is_abandoned_also_where_no_row_can_be_freed(tiny_base, monkeypatch):
    def fail(row):
        raise RuntimeError("the device is gone")

    model = AdapterModel(tiny_base, device="cpu", bounds=Bounds(rows=2))
    texts = [model.submit(ask(n), Sampling(max_new_tokens=60, temperature=2.0)) for n in range(4)]
    model.play()
    monkeypatch.setattr(model._decoder.slots, "release", fail)
    with pytest.raises(RuntimeError, match="the device is gone"):
        model.abandon()
    assert [text.finish for text in texts] == ["canceled"] * 4
    assert (model.running, model.waiting) == (0, 0)


@pytest.mark.parametrize("token", [1, 3])
def test_a_text_that_fails_at_one_of_its_tokens_ends_alone(model, token):
    sampling = Sampling(max_new_tokens=12, temperature=0.8, stop=("\x00never",))
    alone = [model.generate(ask(n), sampling, adapter="a1") for n in range(3)]
    texts = [model.submit(ask(n), sampling, adapter="a1") for n in range(3)]
    pick = texts[1]._choice.pick

    def fail(logits):
        if texts[1].tokens == token - 1:
            raise RuntimeError("probabilities contain nan")
        return pick(logits)

    texts[1]._choice.pick = fail
    said = finish(model, *texts)
    assert (texts[1].finish, str(texts[1].error)) == ("failed", "probabilities contain nan")
    assert alone[1].startswith(said[1])
    assert [said[0], said[2]] == [alone[0], alone[2]]
    assert (model.running, model.waiting) == (0, 0)


def test_a_stream_whose_text_fails_says_so(model, monkeypatch):
    def fail(self, token):
        raise RuntimeError("no such token")

    monkeypatch.setattr("alchemy.training.sampling.Text.add", fail)
    with pytest.raises(RuntimeError, match="no such token"):
        model.generate(ask(1))


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-38, 1e-3])
def test_ever_lower_temperatures_come_to_the_likeliest_token(model, temperature):
    likeliest = model.generate(ask(3), Sampling(max_new_tokens=20))
    assert model.generate(ask(3), Sampling(max_new_tokens=20, temperature=temperature)) == likeliest


@pytest.mark.parametrize("penalty", [0.01, 100])
@pytest.mark.parametrize("temperature", [1e-40, 1, 100])
def test_texts_are_written_up_to_the_bounds_of_their_sampling(model, penalty, temperature):
    sampling = Sampling(
        max_new_tokens=20, temperature=temperature, repetition_penalty=penalty, top_p=1e-40, top_k=3
    )
    text = model.submit(ask(3), sampling)
    finish(model, text)
    assert text.finish in ("stop", "length")


def test_a_round_counts_the_tokens_that_texts_keep(model):
    texts = [model.submit(ask(n), Sampling(max_new_tokens=n + 1)) for n in range(4)]
    kept = 0
    while any(text.finish is None for text in texts):
        kept += model.play().kept
    assert kept == sum(text.tokens for text in texts) > 4
