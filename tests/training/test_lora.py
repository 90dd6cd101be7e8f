import dataclasses
import json
from contextlib import nullcontext

import pytest

from alchemy.catalog import LoraOptions
from alchemy.errors import BadInput, Unavailable
from alchemy.models import resolve
from alchemy.settings import TrainOptions
from alchemy.training.base import attach, load_base
from alchemy.training.curve import loss_curve
from alchemy.training.dataset import encode
from alchemy.training.evaluate import attached, check_adapter, mean_loss
from alchemy.training.generate import AdapterModel
from alchemy.training.lora import train_lora
from alchemy.training.run import schedule
from alchemy.training.samples import answer_samples
from alchemy.training.sampling import Sampling
from tests.tiny_models import make_base


@pytest.fixture
def trained(tiny_base, train_pairs, eval_pairs, lora, options, tmp_path):
    calls = []
    report = train_lora(
        tiny_base,
        train_pairs,
        eval_pairs,
        lora,
        options,
        device="cpu",
        folder=tmp_path,
        progress=lambda done, total, numbers: calls.append((done, total, numbers)),
    )
    return report, calls


def loss_of(base, adapter, pairs):
    """Nats per response token, of a base by name or loaded, with or without an adapter."""
    loaded = load_base(base, "cpu") if isinstance(base, str) else base
    examples = encode(loaded.tokenizer, pairs, 1024).examples
    with attached(loaded, adapter) if adapter else nullcontext(loaded.model) as model:
        return mean_loss(loaded, model, examples)


def test_training_lowers_the_loss_and_says_so(trained):
    report, calls = trained
    assert report.final_train_loss < report.initial_train_loss
    assert report.eval_loss < 0.85 * report.base_eval_loss
    assert report.eval_loss == min(loss for _, loss in report.eval_curve)
    assert report.tokens == report.loss_curve[-1][0] <= 20_000
    assert [done for done, _, _ in calls] == list(range(1, report.steps + 1))
    assert calls[-1][2]["eval_loss"] == report.eval_curve[-1][1]


def test_equal_runs_write_equal_bytes_and_nothing_else(
    tiny_base, train_pairs, eval_pairs, lora, options, adapter, tmp_path
):
    train_lora(tiny_base, train_pairs, eval_pairs, lora, options, device="cpu", folder=tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files == {path.name: path.read_bytes() for path in adapter.iterdir()}
    assert sorted(files) == ["adapter_config.json", "adapter_model.safetensors"]


def test_another_seed_writes_other_bytes(tiny_base, train_pairs, lora, options, adapter, tmp_path):
    other = options.model_copy(update={"seed": 18})
    train_lora(tiny_base, train_pairs, [], lora, other, device="cpu", folder=tmp_path)
    name = "adapter_model.safetensors"
    assert (tmp_path / name).read_bytes() != (adapter / name).read_bytes()


def test_the_configuration_names_the_base_without_a_path(adapter):
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-llama"
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (8, 16, "LORA")
    layers = {name.rsplit(".", 1)[-1] for name in config["target_modules"]}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_reloaded_adapter_gives_the_loss_it_was_kept_for(trained, tiny_base, eval_pairs, tmp_path):
    report, _ = trained
    assert loss_of(tiny_base, tmp_path, eval_pairs) == report.eval_loss
    assert loss_of(tiny_base, None, eval_pairs) == report.base_eval_loss


def test_two_reloads_give_equal_logits(tiny_base, adapter):
    import torch

    ids = torch.arange(5, 25).unsqueeze(0)

    def logits():
        base = load_base(tiny_base, "cpu")
        with torch.inference_mode(), base.precision():
            return attach(base, adapter, "any")(input_ids=ids).logits

    assert torch.equal(logits(), logits())


def test_a_loaded_base_is_left_as_it_was(tiny_base, adapter, eval_pairs):
    base = load_base(tiny_base, "cpu")
    before = loss_of(base, None, eval_pairs)
    assert loss_of(base, adapter, eval_pairs) < before
    assert loss_of(base, None, eval_pairs) == before


def test_without_evaluation_pairs_the_last_adapter_is_kept(tiny_base, train_pairs, lora, options, tmp_path):
    report = train_lora(tiny_base, train_pairs, [], lora, options, device="cpu", folder=tmp_path)
    assert (report.eval_loss, report.base_eval_loss, report.eval_curve) == (None, None, ())
    check_adapter(tmp_path, "tiny-llama")


def test_a_run_that_gets_worse_ends_early_with_the_best_adapter(
    tiny_base, train_pairs, eval_pairs, lora, tmp_path
):
    wrong = [dataclasses.replace(pair, response="mailbot " * 5) for pair in eval_pairs]
    options = TrainOptions(max_tokens=40_000, epochs=40, learning_rate=1e-2, batch_tokens=512)
    report = train_lora(tiny_base, train_pairs, wrong, lora, options, device="cpu", folder=tmp_path)
    assert report.stopped_early
    assert loss_of(tiny_base, tmp_path, wrong) == report.eval_loss


def test_plain_text_is_learnt_from_first_and_judged_by_the_pairs_alone(
    tiny_base, train_pairs, eval_pairs, lora, options, tmp_path
):
    texts = [f"Ticket {number} says that mailbot was moved." for number in range(200)]
    longer = options.model_copy(update={"pretraining_tokens": 2000})
    report = train_lora(
        tiny_base, train_pairs, eval_pairs, lora, longer, device="cpu", folder=tmp_path, texts=texts
    )
    assert 1800 < report.pretraining_tokens <= 2000
    first, second = report.eval_curve[:2]
    assert first[0] == 0
    assert second[0] > report.pretraining_tokens
    assert report.initial_train_loss == next(
        loss for tokens, loss in report.loss_curve if tokens > report.pretraining_tokens
    )
    assert report.eval_loss < 0.85 * report.base_eval_loss


def test_texts_are_not_read_where_no_tokens_are_meant_for_them(
    tiny_base, train_pairs, eval_pairs, lora, options, adapter, tmp_path
):
    def texts():
        raise AssertionError("nobody should ask")
        yield ""

    train_lora(
        tiny_base, train_pairs, eval_pairs, lora, options, device="cpu", folder=tmp_path, texts=texts()
    )
    weights = "adapter_model.safetensors"
    assert (tmp_path / weights).read_bytes() == (adapter / weights).read_bytes()


def test_four_bits_are_refused_where_they_cannot_be_computed_with(
    tiny_base, train_pairs, lora, options, tmp_path
):
    small = options.model_copy(update={"four_bit": True})
    with pytest.raises(Unavailable, match="bitsandbytes"):
        train_lora(tiny_base, train_pairs, [], lora, small, device="cpu", folder=tmp_path)


def test_samples_show_what_the_training_changed(tiny_base, adapter, eval_pairs):
    samples = answer_samples(tiny_base, adapter, eval_pairs, device="cpu")
    assert samples == answer_samples(tiny_base, adapter, eval_pairs[::-1], device="cpu")
    assert len({sample.question for sample in samples}) == 3
    assert all(sample.before != sample.after for sample in samples)
    assert {(sample.question, sample.wanted) for sample in samples} <= {
        (pair.instruction, pair.response) for pair in eval_pairs
    }


def test_an_empty_training_set_is_refused(tiny_base, lora, options, tmp_path):
    with pytest.raises(BadInput, match="no training pair"):
        train_lora(tiny_base, [], [], lora, options, device="cpu", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_learning_rate_warms_up_and_ends_at_zero():
    rates = [schedule(step, 20) for step in range(21)]
    assert rates[0] == 0.5
    assert max(rates) == rates[1] == 1.0
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[20] == pytest.approx(0)


def test_the_loss_curve_is_a_picture(trained):
    assert loss_curve(trained[0]).startswith(b"\x89PNG")


def test_an_adapter_of_another_base_is_refused(adapter, tiny_base):
    with pytest.raises(BadInput, match="trained on tiny-llama, the base model is other/model"):
        check_adapter(adapter, "other/model")


def test_an_adapter_whose_weights_do_not_fit_leaves_the_base_usable(adapter, eval_pairs, tmp_path):
    wide = load_base(make_base(tmp_path / "tiny-llama", hidden=32), "cpu")
    before = loss_of(wide, None, eval_pairs)
    with pytest.raises(BadInput, match="does not fit"):
        loss_of(wide, adapter, eval_pairs)
    assert loss_of(wide, None, eval_pairs) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("adapter_model.bin", b"\x80\x04", "pickle"),
        ("adapter_config.json", b"{", "not a peft configuration"),
        ("adapter_config.json", b"[]", "not a peft configuration"),
        ("adapter_model.safetensors", b"broken", "not a safetensors file"),
    ],
)
def test_unsafe_and_broken_adapters_are_refused(adapter, tmp_path, name, content, message):
    for path in adapter.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        check_adapter(tmp_path, "tiny-llama")


def test_an_incomplete_adapter_is_refused(adapter, tmp_path):
    with pytest.raises(BadInput, match="not an adapter"):
        check_adapter(tmp_path, "tiny-llama")
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    with pytest.raises(BadInput, match="incomplete"):
        check_adapter(tmp_path, "tiny-llama")


@pytest.mark.integration
def test_the_real_base_learns_and_speaks(train_pairs, eval_pairs, tmp_path, models_folder):
    base = "HuggingFaceTB/SmolLM2-135M-Instruct"
    resolve(base, models_folder)
    options = TrainOptions(max_tokens=1500, learning_rate=1e-3, batch_tokens=512)
    report = train_lora(
        base,
        train_pairs,
        eval_pairs,
        LoraOptions(),
        options,
        device="cpu",
        folder=tmp_path,
        models=models_folder,
    )
    assert report.eval_loss < 0.85 * report.base_eval_loss
    model = AdapterModel(base, {"general": tmp_path}, device="cpu", models=models_folder)
    question = [{"role": "user", "content": "What does ticket 7 say about gannet?"}]
    assert model.generate(question, Sampling(max_new_tokens=12), adapter="general").strip()
    assert model.generate(question, Sampling(max_new_tokens=12)) != model.generate(
        question, Sampling(max_new_tokens=12), adapter="general"
    )
