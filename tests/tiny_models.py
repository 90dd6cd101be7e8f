"""A tiny Llama with its own tokenizer, made on the spot: the real code paths in milliseconds."""

import json
from pathlib import Path
from typing import Any

from alchemy.records import SftPair, Split

CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SYSTEMS = ("gannet", "siltstore", "tollgate", "ledgerline", "haulmark", "mailbot")
STATES = ("stopped", "restarted", "upgraded", "moved")


def pairs(split: Split, count: int) -> list[SftPair]:
    """Questions whose answers follow one pattern; no two pairs of a split are the same."""
    rows = []
    offset = 0 if split == "train" else 1000
    for number in range(offset, offset + count):
        system, state = SYSTEMS[number % len(SYSTEMS)], STATES[number % len(STATES)]
        answer = f"Ticket {number} says that {system} was {state}."
        rows.append(
            SftPair(
                id=f"{split}{number}",
                instruction=f"What does ticket {number} say about {system}?",
                response=answer,
                evidence_quote=answer,
                chunk_id=f"c{number}",
                document_id=f"d{number}",
                split=split,
                kind="fact",
                provider="template",
            )
        )
    return rows


def make_base(folder: Path, hidden: int) -> str:
    """Saves a two-layer Llama that was taught another pattern of answers than `pairs` has."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    asked = [pair.instruction for pair in pairs("train", 48)]
    told = [f"{text} {SYSTEMS[n % 5]} {STATES[n % 3]}" for n, text in enumerate(reversed(asked))]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|start|>", "<|end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([*told, "user assistant says that was"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|start|>", eos_token="<|end|>", pad_token="<|end|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LlamaForCausalLM(config)
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], tokenize=False
        )
        for question, answer in zip(asked, told, strict=True)
    ]
    ids = tokenizer(chats, add_special_tokens=False, padding=True, return_tensors="pt")["input_ids"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        batch = ids[torch.arange(step * 16, step * 16 + 16) % len(ids)]
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return str(folder)


def make_adapter(base: str, folder: Path, *, seed: int, rank: int = 4, **config: Any) -> Path:
    """Saves random LoRA factors of all linear layers of a model of `make_base`, large enough to be heard."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    chance = torch.Generator().manual_seed(seed)
    factors = {}
    for name, layer in AutoModelForCausalLM.from_pretrained(base).named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            for part, shape in (("A", (rank, layer.in_features)), ("B", (layer.out_features, rank))):
                key = f"base_model.model.{name}.lora_{part}.weight"
                factors[key] = torch.randn(shape, generator=chance) / 4
    folder.mkdir(parents=True)
    save_file(factors, folder / "adapter_model.safetensors")
    described = {
        "base_model_name_or_path": Path(base).name,
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(described))
    return folder
