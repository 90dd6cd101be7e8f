"""Chunking: speed and where chunks end, against langchain-text-splitters at the same size.

    OMP_NUM_THREADS=1 python benchmarks/chunk.py                        # four texts, about a minute
    OMP_NUM_THREADS=1 python benchmarks/chunk.py --only chinese

English is the sample corpus (wiki pages, issues, commits), read and cleaned as the pipeline does; Chinese
is written here, with a fixed seed. All contenders get the same texts, tokenizer, target and overlap:
- alchemy: `chunk_documents`.
- langchain: RecursiveCharacterTextSplitter as it comes (paragraphs, lines, spaces, characters).
- langchain + sentences: the same with regex separators after English and Chinese terminators.
Its NLTK and spaCy splitters need those packages and are left out.

- end well: share of the chunks before whose end stands a terminator (closing quotes may follow), or whose
  end is that of a paragraph or list item; in code and tables, of a line. Judged on the characters alone,
  by other rules than any contender's.
- where possible: the same without chunks that end inside of a sentence or line that is longer than a chunk,
  such as a commit's list of changed files.
- MB/s: UTF-8 bytes per CPU second.
"""

import argparse
import random
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from langchain_text_splitters import RecursiveCharacterTextSplitter
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer as PlainTokenizer

from alchemy import sources
from alchemy.catalog import load_catalog
from alchemy.models import resolve
from alchemy.records import Document, Draft, Part, RawObject
from alchemy.settings import ChunkOptions, CleanOptions, load_settings
from alchemy.text.chunking import Tokenizer, chunk_documents
from alchemy.text.document import to_document
from alchemy.text.sanitize import Sanitizer

CORPUS = Path(__file__).parents[1] / "../shared/corpus/raw"
SENTENCES = ["\n\n", "\n", r"(?<=[.!?]) +", "(?<=[。！？])", "(?<=[，；])", " ", ""]
_ROUNDS = 3
_FAR = 3000  # characters; no sentence of that length fits into a chunk

Found = tuple[int, str]  # where a chunk says that it starts, and its text
Split = Callable[[Sequence[Document]], list[list[Found]]]
End = Literal["good", "bad", "impossible"]
Fits = Callable[[str], bool]  # whether a text is no longer than a chunk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--characters", type=int, default=600_000, help="of each source and language")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder with a folder for each source")
    parser.add_argument("--only", choices=["english", "chinese"])
    parser.add_argument("--show", type=int, default=0, help="print the first N bad ends of alchemy")
    arguments = parser.parse_args()
    settings = load_settings()
    folder = resolve(load_catalog(settings.catalog).model_b.model_id, settings.models)
    tokenizer = Tokenizer(Path(folder) / "tokenizer.json")
    contenders = make_contenders(tokenizer, Path(folder) / "tokenizer.json", settings.chunk)

    def fits(text: str) -> bool:
        return tokenizer.count_tokens([text])[0] <= settings.chunk.target_tokens

    console = Console(width=120)
    if arguments.only != "chinese" and not arguments.corpus.is_dir():
        console.print(f"no corpus at {arguments.corpus}: English is skipped; give --corpus")
    elif arguments.only != "chinese":
        for name in ("confluence", "jira", "git"):
            documents = list(english(arguments.corpus, name, arguments.characters))
            compare(console, f"English, {name}", documents, contenders, fits, arguments.show)
    if arguments.only != "english":
        compare(console, "Chinese", list(chinese(arguments.characters)), contenders, fits, arguments.show)


# ------------------------------------------------------------------------------------------- contenders


def make_contenders(ours: Tokenizer, path: Path, options: ChunkOptions) -> dict[str, Split]:
    plain = PlainTokenizer.from_file(str(path))
    plain.no_truncation()
    plain.no_padding()

    def alchemy(documents: Sequence[Document]) -> list[list[Found]]:
        found: dict[str, list[Found]] = {document.id: [] for document in documents}
        for chunk in chunk_documents(documents, ours, options):
            found[chunk.document_id].append((chunk.start, chunk.text))
        return list(found.values())

    def langchain(**choices: Any) -> Split:
        splitter = RecursiveCharacterTextSplitter(
            chunk_size=options.target_tokens,
            chunk_overlap=options.overlap_tokens,
            length_function=lambda text: len(plain.encode(text, add_special_tokens=False)),
            add_start_index=True,
            **choices,
        )
        return lambda documents: [
            [
                (one.metadata["start_index"], one.page_content)
                for one in splitter.create_documents([document.text])
            ]
            for document in documents
        ]

    return {
        "alchemy": alchemy,
        "langchain": langchain(),
        "langchain + sentences": langchain(
            separators=SENTENCES, is_separator_regex=True, keep_separator="end"
        ),
    }


# ---------------------------------------------------------------------------------------------- measures


def compare(
    console: Console,
    title: str,
    documents: Sequence[Document],
    contenders: dict[str, Split],
    fits: Fits,
    show: int,
) -> None:
    size = sum(len(document.text.encode()) for document in documents) / 1e6
    seconds = dict.fromkeys(contenders, 0.0)
    results = {}
    for _ in range(_ROUNDS):  # alternating, so that a busy machine is fair to all
        for name, split in contenders.items():
            started = time.process_time()
            results[name] = split(documents)
            seconds[name] += time.process_time() - started
    table = Table("", "chunks", "MB/s", "ratio", "exact spans", "end well", "where possible", box=None)
    for name, found in results.items():
        pairs = [(document, *one) for document, own in zip(documents, found, strict=True) for one in own]
        ends = [
            end for document, own in zip(documents, found, strict=True) for end in judge(document, own, fits)
        ]
        table.add_row(
            name,
            f"{len(pairs):,}",
            f"{_ROUNDS * size / seconds[name]:.2f}",
            f"{seconds[name] / seconds['alchemy']:.1f}",
            share([start >= 0 and document.text.startswith(text, start) for document, start, text in pairs]),
            share([end == "good" for end in ends]),
            share([end == "good" for end in ends if end != "impossible"]),
        )
        if name == "alchemy":
            bad = [text[-100:] for (_, _, text), end in zip(pairs, ends, strict=True) if end == "bad"]
    console.print(f"\n{title}: {len(documents):,} documents, {size:.1f} MB")
    console.print(table)
    for text in bad[:show]:
        print(repr(text))


def share(flags: Sequence[bool]) -> str:
    return f"{100 * sum(flags) / len(flags):.2f} %" if flags else "-"


def judge(document: Document, found: Sequence[Found], fits: Fits) -> Iterator[End]:
    """How each chunk ends; "impossible" inside of a sentence or line that fits into no chunk."""
    text = document.text
    starts = [block.start for block in document.blocks]
    position = 0
    for start, chunk in found:
        # A wrong start is counted apart; for its end a chunk is looked for where it can be.
        position = start if start >= 0 else text.find(chunk, position)
        end = position + len(chunk.rstrip())
        kind = document.blocks[bisect_left(starts, end) - 1].kind
        is_end = ends_well if kind in ("prose", "heading") else ends_line
        if is_end(text, end):
            yield "good"
        else:
            yield "bad" if fits(around(text, end, is_end)) else "impossible"


def around(text: str, position: int, is_end: Callable[[str, int], bool]) -> str:
    """The sentence or line that holds a position, or its first thousands of characters."""
    nearest, farthest = max(0, position - _FAR), min(len(text), position + _FAR)
    before = (at for at in range(position - 1, nearest, -1) if is_end(text, at))
    after = (at for at in range(position + 1, farthest) if is_end(text, at))
    return text[next(before, nearest) : next(after, farthest)]


_TERMINATED = re.compile(r"(?:[.!?…]|(?P<wide>[。！？]))[\"'”’»」』）】》)\]}*_`>]*\Z")
_NEW_PARAGRAPH = re.compile(r"[ \t]*(?:\Z|\n[ \t]*(?:\n|\Z|(?:[-*+•>]|\d+[.)、])[ \t]*\S))")


def ends_well(text: str, end: int) -> bool:
    """Whether `text[:end]` ends with a sentence, a paragraph or a list item."""
    if _NEW_PARAGRAPH.match(text, end):
        return True
    terminated = _TERMINATED.search(text[max(0, end - 12) : end])
    return bool(terminated and (terminated["wide"] or text[end].isspace()))


def ends_line(text: str, end: int) -> bool:
    return text[end : end + 1] in ("", "\n")


# ------------------------------------------------------------------------------------------------- texts


def english(folder: Path, source: str, characters: int) -> Iterator[Document]:
    """The first documents of a source, as the pipeline cleans them."""
    sanitizer, options = Sanitizer(b"benchmark"), CleanOptions()
    for path in sorted((folder / source).iterdir()):
        raw = RawObject(source, f"raw/{source}/{path.name}", path.stat().st_size, "")
        for draft in sources.read(raw, path, options):
            made = to_document(draft, raw, sanitizer, options) if isinstance(draft, Draft) else draft
            if isinstance(made, Document):
                yield made
                characters -= len(made.text)
            if characters <= 0:
                return


_SUBJECTS = [
    "消费者组",
    "协调器",
    "分区",
    "副本",
    "日志段",
    "控制器",
    "生产者",
    "管理员",
    "监控系统",
    "Kafka",
    "客户端",
    "调度任务",
    "缓存层",
    "网关",
]
_VERBS = [
    "会重新分配",
    "无法连接",
    "已经升级",
    "正在检查",
    "重新启动",
    "记录了",
    "提交了",
    "拒绝了",
    "等待着",
    "释放了",
]
_OBJECTS = [
    "偏移量",
    "心跳请求",
    "全部的连接",
    "配置文件",
    "内存中的索引",
    "3.51.1.0版本",
    "0.75的负载",
    "“就绪”状态",
    "旧的快照",
    "https://example.org/docs/a.html?page=2&lang=zh",
    "事务标记",
    "v2.8.0-rc.1",
    "磁盘上的数据",
]
_ENDS = ["。", "。", "。", "。", "。", "！", "？", "。）", "！”", "？！"]


def chinese(characters: int) -> Iterator[Document]:
    """Pages with headings, paragraphs, lists, tables and code; sentences of one to twelve clauses."""
    random_ = random.Random(7)
    sanitizer, options = Sanitizer(b"benchmark"), CleanOptions()
    number = 0
    while characters > 0:
        number += 1
        draft = Draft("page", f"zh-{number}", f"第{number}页：集群运维手册", tuple(_page(random_)), "")
        raw = RawObject("confluence", f"raw/confluence/{number}.html", 0, "")
        made = to_document(draft, raw, sanitizer, options)
        assert isinstance(made, Document)
        characters -= len(made.text)
        yield made


def _page(random_: random.Random) -> Iterator[Part]:
    for section in range(1, random_.randint(2, 6)):
        yield Part(f"## {section} {random_.choice(_SUBJECTS)}", "heading")
        for _ in range(random_.randint(1, 4)):
            yield Part("".join(_sentence(random_) for _ in range(random_.randint(1, 14))))
        if section % 2:
            yield Part("\n".join(f"- {_sentence(random_).rstrip('。')}" for _ in range(5)))
        if section % 3 == 0:
            rows = [f"{name} | {random_.random():.3f} | {random_.choice(_OBJECTS)}" for name in _SUBJECTS]
            yield Part("\n".join(["名称 | 负载 | 说明", *rows]), "table")
            yield Part("\n".join(f"    restart --node {n} --wait {n * 7}s" for n in range(20)), "code")


def _sentence(random_: random.Random) -> str:
    # As in what people write, most sentences are short, and one in some hundred is longer than a chunk.
    count = 1 + int(random_.expovariate(1.0))
    clauses = [
        random_.choice(_SUBJECTS) + random_.choice(_VERBS) + random_.choice(_OBJECTS) for _ in range(count)
    ]
    end = random_.choice(_ENDS)
    opening = {"）": "（", "”": "“"}.get(end[-1], "")
    return opening + random_.choice("，，，；").join(clauses) + end


if __name__ == "__main__":
    main()
