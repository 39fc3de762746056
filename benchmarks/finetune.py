"""How fast our fine-tuning program is beside a plain Transformers Trainer with the same work, in the same run.

    python -m benchmarks.finetune [--device auto|cpu] [--model tiny|125m|1b|7b] [--steps N] [--batch-size N] ...

Both train the same random model (Llama's architecture; nothing is downloaded) with the same adapter on the same tokens
in the same number of steps and the same type of numbers: bfloat16 on a GPU, float32 on a CPU. Loading, which is the
same for both, is left out; the time is that of the training itself, first step to last. Each round runs one after the
other in processes of their own, whose order changes from round to round.

Without a GPU nothing is measured, unless ``--device cpu`` asks for it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures

#: Hidden size, intermediate size, layers, heads.
MODELS = {
    "tiny": (64, 128, 2, 2),
    "125m": (768, 3072, 12, 12),
    "1b": (2048, 5632, 16, 16),
    "7b": (4096, 11008, 32, 32),
}
VOCABULARY = 32_000  # a model's usual one, of which the tokenizer knows a few hundred
WORDS = ("puck", "ice", "goal", "keeper", "rocket", "moon", "orbit", "launch", "the", "over", "into", "flew")

#: The measuring is the same for both: tokens of the batches, seconds from the first step's begin to the last one's end.
MEASURE = """
import json, sys, time
import torch, transformers

class Measure(transformers.TrainerCallback):
    def __init__(self):
        self.tokens = 0
    def on_train_begin(self, args, state, control, **more):
        self.wait()
        self.began = time.perf_counter()
    def on_train_end(self, args, state, control, **more):
        self.wait()
        self.seconds = time.perf_counter() - self.began
    def wait(self):
        if torch.cuda.is_available():
            torch.cuda.synchronize()

measure = Measure()
init, step = transformers.Trainer.__init__, transformers.Trainer.training_step

def measured(self, *arguments, **named):
    init(self, *arguments, **named)
    self.add_callback(measure)

def counted(self, model, inputs, *arguments, **named):
    measure.tokens += inputs["input_ids"].numel()
    return step(self, model, inputs, *arguments, **named)

transformers.Trainer.__init__, transformers.Trainer.training_step = measured, counted

def tell():
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    print("MEASURED " + json.dumps([measure.tokens, measure.seconds, peak]), flush=True)
"""
OURS = (
    MEASURE
    + """
import runpy
try:
    runpy.run_module("airflow_provider_kitops.workload.finetune", run_name="__main__", alter_sys=True)
except SystemExit as ended:
    if ended.code:
        raise
tell()
"""
)
PLAIN = (
    MEASURE
    + """
import os, pathlib
import peft
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

config = json.loads((pathlib.Path(os.environ["KITOPS_CONFIG"]) / "config.json").read_text())
inputs = pathlib.Path(os.environ["KITOPS_INPUTS"])
gpu = config["device"] == "cuda"
transformers.set_seed(config["seed"])
if config["threads"]:
    torch.set_num_threads(config["threads"])
tokenizer = AutoTokenizer.from_pretrained(inputs / "base")
tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained(inputs / "base", dtype=torch.bfloat16 if gpu else torch.float32)
model = model.to(config["device"])
model = peft.get_peft_model(
    model,
    peft.LoraConfig(task_type="CAUSAL_LM", r=config["lora_rank"], lora_alpha=16, target_modules="all-linear"),
)
rows = []
for line in (inputs / "train.jsonl").read_text().splitlines():
    row = json.loads(line)
    prompt = tokenizer(row["prompt"])["input_ids"]
    answer = [*tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id]
    rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir=sys.argv[1],
        max_steps=config["max_steps"],
        per_device_train_batch_size=config["batch_size"],
        gradient_accumulation_steps=config["gradient_accumulation_steps"],
        gradient_checkpointing=config["gradient_checkpointing"],
        learning_rate=config["learning_rate"],
        seed=config["seed"],
        bf16=gpu,
        use_cpu=not gpu,
        optim="adamw_torch",
        save_strategy="no",
        logging_steps=10,
        disable_tqdm=True,
        report_to=[],
    ),
    train_dataset=rows,
    data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
)
trainer.train()
tell()
"""
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--directory", type=Path, help="where to work (default: the temporary directory)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--model", choices=tuple(MODELS), default="1b")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--accumulation", type=int, default=1, help="batches for one step")
    parser.add_argument("--prompt", type=int, default=400, help="words of a row's prompt")
    parser.add_argument("--completion", type=int, default=100, help="words of its answer")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    import torch

    gpu = options.device == "auto" and torch.cuda.is_available()
    if options.device == "auto" and not gpu:
        print(f"skipped: no GPU (PyTorch {torch.__version__} finds none); --device cpu measures without one")
        return
    about = {
        "device": torch.cuda.get_device_name() if gpu else f"{os.cpu_count()} CPU cores",
        "dtype": "bfloat16" if gpu else "float32",
        "torch": torch.__version__,
        **{name: getattr(options, name) for name in ("model", "steps", "batch_size", "prompt", "completion", "rank")},
    }
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        figures = measure(Path(directory), options, "cuda" if gpu else "cpu")
    print(json.dumps({**about, "results": figures.results}))


def measure(root: Path, options: argparse.Namespace, device: str) -> Figures:
    for name in ("in", "config", "out", "checkpoints"):
        (root / name).mkdir()
    parameters = write_model(root / "in" / "base", options.model)
    write_data(root / "in" / "train.jsonl", options)
    settings = {
        "task": "causal-lm",
        "template": "{text}",
        "data": "prompt-completion",
        "max_length": 4096,
        "device": device,
        "max_steps": options.steps,
        "batch_size": options.batch_size,
        "gradient_accumulation_steps": options.accumulation,
        "gradient_checkpointing": options.gradient_checkpointing,
        "learning_rate": 2e-4,
        "lora_rank": options.rank,
        "checkpoint_steps": 0,
        "threads": options.threads,
        "seed": 0,
    }
    (root / "config" / "config.json").write_text(json.dumps(settings))
    programs = {"ours": OURS, "plain": PLAIN}
    rounds: list[dict[str, tuple[int, float, int]]] = []
    for number in range(options.rounds):
        order = sorted(programs, reverse=bool(number % 2))
        rounds.append({name: run(programs[name], root) for name in order})
    figures = Figures()
    figures.value("parameters of the model", parameters, "")
    for name in programs:
        speeds = sorted(tokens / seconds for tokens, seconds, _ in (each[name] for each in rounds))
        figures.value(f"{name}: tokens per second (median)", round(speeds[len(speeds) // 2]), "tokens/s")
        if device == "cuda":
            figures.value(f"{name}: most memory of the GPU", max(each[name][2] for each in rounds) >> 20, "MiB")
    # For the same number of tokens, should padding have made them differ.
    pairs = [(each["ours"][1] / each["ours"][0], each["plain"][1] / each["plain"][0]) for each in rounds]
    tokens = rounds[0]["plain"][0]
    figures.ratio(
        "time of training / a plain Trainer's", None, [(mine * tokens, other * tokens) for mine, other in pairs]
    )
    return figures


def run(program: str, root: Path) -> tuple[int, float, int]:
    """Tokens, seconds, and bytes of the GPU's memory at most."""
    names = {"INPUTS": "in", "CONFIG": "config", "OUTPUT": "out", "CHECKPOINTS": "checkpoints"}
    done = subprocess.run(
        [sys.executable, "-c", program, *([str(root / "plain")] if program == PLAIN else [])],
        env={
            **os.environ,
            **{f"KITOPS_{name}": str(root / directory) for name, directory in names.items()},
            "HF_HUB_OFFLINE": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "TRANSFORMERS_VERBOSITY": "error",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in done.stdout.splitlines():
        if line.startswith("MEASURED "):
            tokens, seconds, peak = json.loads(line.removeprefix("MEASURED "))
            return int(tokens), float(seconds), int(peak)
    raise SystemExit(f"The program ended with {done.returncode}:\n{done.stdout[-3000:]}")


def write_model(directory: Path, size: str) -> int:
    """A random model with a tokenizer that knows every text; returns how many parameters it has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny_model import tiny_tokenizer

    hidden, intermediate, layers, heads = MODELS[size]
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if size in ("1b", "7b") else torch.float32)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=4096,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=None,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return int(sum(each.numel() for each in model.parameters()))


def write_data(path: Path, options: argparse.Namespace) -> None:
    """Rows of lengths that differ by a quarter, as real ones do."""
    chance = random.Random(0)

    def words(most: int) -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(max(1, most * 3 // 4), most)))

    rows = options.batch_size * options.accumulation * options.steps
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            row = {"prompt": words(options.prompt) + " ", "completion": words(options.completion)}
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
