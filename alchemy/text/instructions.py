"""Sentences that talk to whoever answers from a document, instead of telling the reader something.

Used where sentences are chosen to be quoted: such a sentence answers nobody's question, and a picture in it
would be loaded by whoever shows the answer and tell its server who asked. The document stays as it is, and
can be found and read; it is only never quoted there. Not a detector of attacks: the patterns are narrow, so
that a manual which says "ignore the previous step" is quoted, and what they miss is a quote with its source.
"""

import re

_TO_THE_MODEL = re.compile(
    r"""(?ix)
      \b(?:ignore|disregard|forget)\s+(?:(?:all|any|of|the)\s+)*(?:previous|prior|above|earlier|your)\s+(?:\w+\s+)?
        (?:instructions?|rules|prompts?|guidelines)\b
    | \bdisregard\s+everything\b | \bfollows?\s+no\s+rules\b | \b(?:your|new)\s+system\s+prompt\b
    | \b(?:answer|reply|respond)\s+only\s+with\b | \byou\s+only\s+ever\s+say\b | \bsay\s+nothing\s+else\b
    | \b(?:note|message|instructions?)\b[^.\n]{0,30}\bto\s+(?:the|any|all)\s+(?:ai|language\s+models?|llms?)\b
    | \b(?:no\s+longer|if\s+you\s+are)\s+an?\s+(?:ai|assistant|language\s+model)\b
    | \bassistants?\s+must\b | ^\s*assistant\s*: | \bdo\s+what\s+it\s+says\b | \bobey\s+it\b
    | \bdo\s+not\s+(?:cite|mention)\s+(?:this\s+document|any\s+sources?)\b
    | <\|[a-z_]+\|> | \[/?INST\] | <</?SYS>> | </?passage\b
    | \b(?:vergiss|ignoriere?)\b[^.\n]{0,30}\banweisungen\b
    | (?:忽略|无视|忘记)(?:以上|之前|前面|所有|一切|你的)[^。\n]{0,8}(?:指令|指示|规则) | 系统提示词
    | 你现在是[^。\n]{0,12}(?:助手|机器人|模型) | 只(?:能)?(?:回答|输出)[“"「]
    """
)
# What a page or a Markdown viewer loads or runs without being asked; naming the <img> element does neither.
_BEFORE = r"[^>]{0,2000}[\s/\"']"  # bounded: tags in tags would be read over and over
ACTIVE = re.compile(
    rf"!\[[^\]\n]*\]\s*[\[(]|<[a-z]+\b{_BEFORE}(?:src|srcset|data|poster|http-equiv|on[a-z]+)\s*="
    rf"|<link\b{_BEFORE}href\s*=",
    re.IGNORECASE,
)


def is_for_the_model(sentence: str) -> bool:
    """Whether the sentence gives orders to a language model, or poses as part of its prompt."""
    return bool(_TO_THE_MODEL.search(sentence))


def is_active(text: str) -> bool:
    """Whether showing the text as Markdown or HTML would load a picture or run something."""
    return bool(ACTIVE.search(text))
