"""Writes expected.json: the prompts that vLLM 0.32's own benchmark datasets make of the files in this folder.

vLLM 0.32 has no sonnet dataset any more: those rows follow the rule of earlier versions, with Python's own `random`.

Run from the root of the repository, with a Python that has vLLM 0.32 and pandas:

    python tests/data/datasets/parity.py
"""

import hashlib
import json
import pathlib
import random
import shutil
import tempfile

from vllm.benchmarks.datasets import CustomDataset, RandomDataset, SampleRequest, ShareGPTDataset
from vllm.tokenizers import get_tokenizer

DATA = pathlib.Path("tests/data")
MODEL = DATA / "tiny-llama"


def with_begin_token(folder: pathlib.Path) -> str:
    """The same tokenizer, but every text begins with <s>, as Llama's do."""
    shutil.copytree(MODEL, folder, dirs_exist_ok=True)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    path.write_text(json.dumps(tokenizer))
    return str(folder)


def sonnet(tokenizer, seed, count, input_len, prefix_len, output_len):
    """A task, lines that all prompts share, and lines drawn for each, as many as the average line lets in."""

    def chat(text):
        message = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)

    def count_of(text):
        return len(tokenizer(text).input_ids)

    task = "Pick as many lines as you can from these poem lines:\n"
    lines = (DATA / "datasets/sonnet.txt").read_text().splitlines(keepends=True)
    average = sum(map(count_of, lines)) / len(lines)
    base = count_of(chat(task))
    shared = max(round((prefix_len - base) / average), 0)
    own = round((input_len - base) / average) - shared
    random.seed(seed)
    prompts = []
    while len(prompts) < count:
        text = chat(task + "".join(lines[:shared] + random.choices(lines, k=own)))
        if count_of(text) <= input_len:
            prompts.append(SampleRequest(text, count_of(text), output_len))
    return prompts


def row(dataset, flags, prompts, begin_token=False):
    return {
        "dataset": dataset,
        "flags": flags,
        "begin_token": begin_token,
        "prompt_tokens": [prompt.prompt_len for prompt in prompts],
        "output_tokens": [prompt.expected_output_len for prompt in prompts],
        "sha256": [hashlib.sha256(prompt.prompt.encode()).hexdigest()[:16] for prompt in prompts],
    }


def main() -> None:
    rows = []
    plain = get_tokenizer(str(MODEL))
    with tempfile.TemporaryDirectory() as folder:
        begin = get_tokenizer(with_begin_token(pathlib.Path(folder)))
        for seed, count, length, output, prefix, ratio, begin_token in [
            (0, 8, 64, 16, 0, 0.0, False),
            (0, 8, 64, 16, 0, 0.0, True),
            (7, 6, 300, 20, 0, 0.0, False),
            (3, 12, 40, 24, 10, 0.5, False),
            (1, 12, 40, 24, 0, {"input": 0.3, "output": 0.9}, True),
            (2**40 + 5, 4, 1, 1, 3, 0.0, False),
        ]:
            prompts = RandomDataset(random_seed=seed).sample(
                tokenizer=begin if begin_token else plain,
                num_requests=count,
                prefix_len=prefix,
                input_len=length,
                output_len=output,
                range_ratio=ratio,
            )
            ratio = ratio if isinstance(ratio, float) else f"'{json.dumps(ratio)}'"
            flags = (
                f"--seed {seed} --num-prompts {count} --random-input-len {length} --random-output-len {output} "
                f"--random-prefix-len {prefix} --random-range-ratio {ratio}"
            )
            rows.append(row("random", flags, prompts, begin_token))

    for seed, count, output, shuffle, oversample in [
        (0, 5, None, True, True),
        (1, 40, None, True, True),
        (1, 40, None, True, False),
        (0, 12, 3, True, True),
        (0, 6, None, False, True),
    ]:
        prompts = ShareGPTDataset(
            random_seed=seed, dataset_path=str(DATA / "datasets/sharegpt.json"), disable_shuffle=not shuffle
        ).sample(tokenizer=plain, num_requests=count, output_len=output, no_oversample=not oversample)
        flags = f"--seed {seed} --num-prompts {count}"
        flags += f" --sharegpt-output-len {output}" if output else ""
        flags += "" if shuffle else " --disable-shuffle"
        flags += "" if oversample else " --no-oversample"
        rows.append(row("sharegpt", flags, prompts))

    for seed, count, output, template, kwargs in [
        (0, 4, 256, True, None),
        (5, 20, -1, True, {"mood": "brief"}),
        (0, 0, 8, False, None),
    ]:
        prompts = CustomDataset(random_seed=seed, dataset_path=str(DATA / "datasets/custom.jsonl")).sample(
            tokenizer=plain,
            num_requests=count,
            output_len=output,
            skip_chat_template=not template,
            chat_template_kwargs=kwargs,
        )
        flags = f"--seed {seed} --num-prompts {count} --custom-output-len {output}"
        flags += "" if template else " --skip-chat-template"
        flags += f" --chat-template-kwargs '{json.dumps(kwargs)}'" if kwargs else ""
        rows.append(row("custom", flags, prompts))

    for seed, count, input_len, prefix_len, output_len in [(0, 5, 300, 120, 40), (9, 4, 200, 0, 7)]:
        flags = (
            f"--seed {seed} --num-prompts {count} --sonnet-input-len {input_len} "
            f"--sonnet-prefix-len {prefix_len} --sonnet-output-len {output_len}"
        )
        rows.append(row("sonnet", flags, sonnet(plain, seed, count, input_len, prefix_len, output_len)))

    lines = ",\n".join(json.dumps(row) for row in rows)
    (DATA / "datasets/expected.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
