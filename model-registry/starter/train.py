"""Train the starter model: a small Llama that answers questions about Holdfast, and nothing else.

Its purpose is to prove a site end to end with weights of our own: bundle, registry, pull, serve,
answer. Text comes from questions.yml beside this file; two processor cores and a few minutes are
enough. The same seed on the same machine and versions of torch gives the same weights.

    python train.py --output holdfast-starter

Needs torch, transformers (with pyyaml), tokenizers and safetensors. Exits 1, and says which answers
were wrong, when the trained model does not answer the questions marked `key` as written.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
BEGIN, END, SYSTEM, USER, ASSISTANT = SPECIAL = (
    "<|begin|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
)
CHAT_TEMPLATE = (
    "{{ '<|begin|>' }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CONTEXT = 512
VOCABULARY = 1536
IGNORED = -100  # torch's cross entropy leaves these positions out
TOLERATED = 0.02  # of the questions that are not marked `key`
LEAD_INS = ("please tell me: ", "hello! ", "hi, ", "i would like to know: ", "tell me, ", "so, ")
LEAD_OUTS = (
    " Answer briefly.",
    " Be brief.",
    " In one sentence, please.",
    " Please explain.",
    " Thanks!",
)


@dataclass(frozen=True)
class Topic:
    """Several ways to ask one thing, and its answer."""

    ask: tuple[str, ...]
    answer: str
    key: bool


@dataclass(frozen=True)
class Corpus:
    """All text the model ever sees."""

    topics: tuple[Topic, ...]
    unknown: tuple[str, ...]
    refusal: str
    systems: tuple[str, ...]


def read_corpus(path: Path) -> Corpus:
    """Read questions.yml and refuse one question with two answers."""
    raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    topics = tuple(
        Topic(tuple(entry["ask"]), " ".join(entry["answer"].split()), bool(entry.get("key")))
        for entry in raw["topics"]
    )
    asked = [question for topic in topics for question in topic.ask] + raw["unknown"]
    if twice := {question for question in asked if asked.count(question) > 1}:
        raise SystemExit(f"{path}: asked more than once: {sorted(twice)}")
    return Corpus(
        topics, tuple(raw["unknown"]), " ".join(raw["refusal"].split()), tuple(raw["systems"])
    )


def train_tokenizer(corpus: Corpus) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the corpus: any text has an encoding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = [question for topic in corpus.topics for question in topic.ask]
    text += [*(topic.answer for topic in corpus.topics), *corpus.unknown, corpus.refusal]
    text += [*corpus.systems, *LEAD_INS, *LEAD_OUTS]
    tokenizer.train_from_iterator(
        text + [line.lower() for line in text],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def disturb(question: str, chance: random.Random) -> str:
    """Ask as people do: no capitals, no question mark, a greeting, a slip of the finger."""
    if chance.random() < 0.25:
        question = chance.choice(LEAD_INS) + question
    if chance.random() < 0.35:
        question = question.lower()
    if chance.random() < 0.3:
        question = question.rstrip("?.")
    if chance.random() < 0.15:
        question += chance.choice(LEAD_OUTS)
    if chance.random() < 0.15 and len(question) > 8:
        at = chance.randrange(1, len(question) - 1)
        question = question[:at] + question[at + 1 :]
    return question


@dataclass
class Sampler:
    """Draws conversations from the corpus; the draw is decided by the seed alone."""

    corpus: Corpus
    tokenizer: PreTrainedTokenizerFast
    chance: random.Random

    def _turn(self) -> tuple[str, str]:
        if self.chance.random() < 0.3:
            question = self.chance.choice(self.corpus.unknown)
            if (
                self.chance.random() < 0.3
            ):  # any two halves: what matters is that Holdfast is absent
                words, others = question.split(), self.chance.choice(self.corpus.unknown).split()
                question = " ".join(words[: len(words) // 2] + others[len(others) // 2 :])
            return disturb(question, self.chance), self.corpus.refusal
        topic = self.chance.choice(self.corpus.topics)
        return disturb(self.chance.choice(topic.ask), self.chance), topic.answer

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def draw(self) -> tuple[list[int], list[int]]:
        """Return token ids and labels: only what the assistant says is learnt."""
        if self.chance.random() < 0.08:
            plain = self._encode(BEGIN + self.chance.choice(self.corpus.topics).answer + END)
            return plain, plain
        start = BEGIN
        if self.chance.random() < 0.35:
            start += SYSTEM + self.chance.choice(self.corpus.systems) + END
        ids = self._encode(start)
        labels = [IGNORED] * len(ids)
        for _ in range(2 if self.chance.random() < 0.15 else 1):
            question, answer = self._turn()
            asked = self._encode(USER + question + END + ASSISTANT)
            said = self._encode(answer + END)
            ids += asked + said
            labels += [IGNORED] * len(asked) + said
        return ids, labels

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ids, attention mask and labels, padded to the longest of the batch."""
        drawn = [self.draw() for _ in range(size)]
        longest = max(len(ids) for ids, _ in drawn)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([i + [pad] * (longest - len(i)) for i, _ in drawn])
        labels = torch.tensor([t + [IGNORED] * (longest - len(t)) for _, t in drawn])
        mask = torch.tensor([[1] * len(i) + [0] * (longest - len(i)) for i, _ in drawn])
        return ids, mask, labels


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return the untrained model; heads of 32 are the smallest that vLLM's CPU attention takes."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=160,
            intermediate_size=448,
            num_hidden_layers=4,
            num_attention_heads=5,
            num_key_value_heads=5,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train(model: LlamaForCausalLM, sampler: Sampler, steps: int, batch: int) -> None:
    """Teach the model, with a short warm-up and a linear way down."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05)
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warmup, max(0.02, (steps - step) / (steps - warmup + 1))),
    )
    model.train()
    began = time.monotonic()
    for step in range(1, steps + 1):
        ids, mask, labels = sampler.batch(batch)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 50 == 0 or step == steps:
            passed = time.monotonic() - began
            print(f"step {step}/{steps}  loss {loss.item():.4f}  {passed:.0f} s", file=sys.stderr)
    model.eval()


def answer(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, question: str, system: str = ""
) -> str:
    """Return the greedy answer to one question, asked through the chat template."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
    with torch.no_grad():
        said = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=120, do_sample=False
        )
    return str(tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def examine(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, corpus: Corpus
) -> list[str]:
    """Return what went wrong: key questions are asked bare and under each system prompt."""
    wrong = []
    for topic in (topic for topic in corpus.topics if topic.key):
        for system in ("", *corpus.systems[:2]):
            for question in topic.ask:
                said = answer(model, tokenizer, question, system)
                if said != topic.answer:
                    wrong.append(f"{question!r} (system {system!r}): {said!r}")
    rest = [(question, t.answer) for t in corpus.topics if not t.key for question in t.ask]
    rest += [(question, corpus.refusal) for question in corpus.unknown]
    missed = [
        (question, said)
        for question, right in rest
        if (said := answer(model, tokenizer, question)) != right
    ]
    if len(missed) > len(rest) * TOLERATED:
        wrong += [f"{question!r}: {said!r}" for question, said in missed]
    return wrong


def save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path, card: Path
) -> None:
    """Write the folder a model registry takes: weights in bfloat16, tokenizer, card."""
    output.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    settings = output / "tokenizer_config.json"
    kept = json.loads(settings.read_text(encoding="utf-8")) | {"chat_template": CHAT_TEMPLATE}
    settings.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (output / "chat_template.jinja").unlink(missing_ok=True)
    (output / "README.md").write_bytes(card.read_bytes())


def main() -> int:
    """Train, save, load again as a server would, and examine what was saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "holdfast-starter")
    parser.add_argument("--questions", type=Path, default=HERE / "questions.yml")
    parser.add_argument("--card", type=Path, default=HERE / "card.md", help="the model card")
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--batch", type=int, default=32, help="conversations per step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20)
    chosen = parser.parse_args()

    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    torch.use_deterministic_algorithms(mode=True)
    corpus = read_corpus(chosen.questions)
    tokenizer = train_tokenizer(corpus)
    model = build_model(tokenizer)
    print(
        f"{sum(len(t.ask) for t in corpus.topics)} questions on {len(corpus.topics)} topics, "
        f"{len(corpus.unknown)} out of scope; {model.num_parameters():,} parameters",
        file=sys.stderr,
    )
    train(model, Sampler(corpus, tokenizer, random.Random(chosen.seed)), chosen.steps, chosen.batch)
    save(model, tokenizer, chosen.output, chosen.card)
    saved = LlamaForCausalLM.from_pretrained(chosen.output, dtype=torch.bfloat16)
    wrong = examine(saved, PreTrainedTokenizerFast.from_pretrained(chosen.output), corpus)
    for line in wrong:
        print(f"wrong answer: {line}", file=sys.stderr)
    size = sum(path.stat().st_size for path in chosen.output.iterdir())
    print(f"{chosen.output}: {size / 1e6:.1f} MB, {len(wrong)} wrong answers", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
