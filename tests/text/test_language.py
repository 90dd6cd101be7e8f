"""The language of a document, or that its text does not show it."""

import pytest

from alchemy.text.language import detect_language

TEXTS = {
    "en": "The broker waits for its own lock and never answers, so every consumer behind it times out.",
    "de": "Der Server wartet auf seine eigene Sperre und antwortet nicht, deshalb laufen alle Aufträge ab.",
    "fr": "Le serveur attend son propre verrou et ne répond jamais, donc toutes les tâches expirent.",
    "es": "El servidor espera su propio bloqueo y nunca responde, por eso todas las tareas caducan.",
    "it": "Il server aspetta il proprio blocco e non risponde mai, quindi tutte le attività scadono.",
    "pt": "O servidor espera pelo seu próprio bloqueio e nunca responde, por isso todas as tarefas expiram.",
    "nl": "De server wacht op zijn eigen vergrendeling en antwoordt nooit, dus alle taken verlopen.",
    "pl": "Serwer czeka na własną blokadę i nigdy nie odpowiada, dlatego wszystkie zadania wygasają.",
    "ru": "Сервер ждёт собственную блокировку и никогда не отвечает, поэтому все задачи истекают.",
    "zh": "调度器等待它自己的锁，因此 KafkaConsumer 的任务全部超时，请升级到 3.4.2 版本。",
    "ja": "サーバーは自分のロックを待っているため、すべてのタスクがタイムアウトします。",
    "ko": "서버가 자신의 잠금을 기다리기 때문에 모든 작업이 시간 초과됩니다.",
}


@pytest.mark.parametrize("language", TEXTS)
def test_a_sentence_is_enough(language):
    assert detect_language(TEXTS[language]) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "KAFKA-1",
        "Files changed: src/main/java/org/apache/Foo.java, pom.xml",
        "x = 1\ny = 2",
        "<EMAIL_3f2a90c1>",
    ],
)
def test_a_text_without_plain_words_has_no_language(text):
    assert detect_language(text) == "und"


def test_paths_and_pseudonyms_do_not_change_the_language_of_the_words_around_them():
    noise = " tika-parsers/src/main/java/org/apache/tika/parser/Foo.java <EMAIL_3f2a90c1> getFooBar()"
    assert detect_language(TEXTS["de"] + noise * 5) == "de"
