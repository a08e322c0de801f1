"""What is a wish not to be called again and what is not, in both languages; and that the dialer's API hears of it."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from agent import suppressing
from agent.opt_out import asked, patterns
from agent.phrases import NAMES, phrases
from agent.sentences import Sentences
from rehearsal import serving
from runtime.settings import Secret, Settings
from schemas import values
from schemas.conversation import PHRASE_LENGTH_MAX, Phrases

CALLEE = values.callee_key("+12125550123", b"pepper")
CALL_ID = values.call_id(CALLEE, values.request_hash("rx", "1"))


@pytest.mark.parametrize(
    ("words", "language", "evidence"),
    [
        ("Please stop calling me!", "en-US", "en-stop-calling"),
        ("Stop these calls.", "en-US", "en-stop-these-calls"),
        ("Don't call me again.", "en-US", "en-dont-call"),
        ("Do not ever call this number anymore", "en-US", "en-dont-call"),
        ("Please don’t call me.", "en-US", "en-dont-call-me"),
        ("Take me off your list", "en-US", "en-remove-me"),
        ("Could you remove my number, please?", "en-US", "en-remove-number"),
        ("Put me on your do not call list", "en-US", "en-do-not-call-list"),
        ("I don't want any more of these calls", "en-US", "en-no-more-calls"),
        ("I do not want to be called", "en-US", "en-dont-want-to-be-called"),
        ("I want to opt out.", "en-US", "en-opt-out"),
        ("Lose my number", "en-US", "en-lose-my-number"),
        ("Just leave me alone!", "en-US", "en-leave-me-alone"),
        ("Deje de llamarme.", "es-US", "es-deje-de-llamar"),
        ("No vuelvan a llamarme nunca", "es", "es-no-me-llame"),
        ("Por favor, no me llame más.", "es", "es-no-llame-mas"),
        ("No quiero que me llamen", "es", "es-no-me-llamen"),
        ("Ya no me llamen", "es", "es-ya-no-me-llame"),
        ("Quíteme de su lista", "es", "es-quiteme"),
        ("Borre mi número", "es", "es-quite-mi-numero"),
        ("¡No más llamadas!", "es", "es-no-mas-llamadas"),
        ("Déjeme en paz", "es", "es-dejeme-en-paz"),
        ("Quiero darme de baja", "es", "es-baja"),
    ],
)
def test_a_wish_is_heard_by_its_pattern(words: str, language: str, evidence: str) -> None:
    """The id of the pattern is the evidence."""
    assert asked(words, language) == evidence


@pytest.mark.parametrize(
    ("words", "language"),
    [
        ("Yes, please.", "en-US"),
        ("Don't stop calling me, I like it", "en-US"),
        ("Why don't you call me again tomorrow?", "en-US"),
        ("Don't call me today, call me tomorrow", "en-US"),
        ("Don't call me before noon", "en-US"),
        ("I will call you back", "en-US"),
        ("Can I stop by on Monday?", "en-US"),
        ("If you don't call me I will be late", "en-US"),
        ("I don't want to opt out", "en-US"),
        ("Who is calling?", "en-US"),
        ("No me llame hoy, llámeme mañana", "es"),
        ("No, hoy no puedo, llámeme más tarde", "es"),
        ("¿Quién llama?", "es"),
        ("Sí, por favor", "es"),
        ("Please stop calling me!", "de-DE"),
    ],
)
def test_what_is_no_wish_is_none(words: str, language: str) -> None:
    """A postponement, a question, a language without patterns."""
    assert asked(words, language) is None


def test_every_pattern_has_its_own_id() -> None:
    """An id is evidence on the log: it names one pattern."""
    ids = [pattern.id for language in ("en", "es") for pattern in patterns(language)]
    assert len(ids) == len(set(ids)) > 20


def test_every_language_has_every_sentence_and_a_campaign_may_have_its_own() -> None:
    """What the agent says by itself fits a campaign's own limit."""
    for language in ("en-US", "es"):
        known = phrases(language, Phrases())
        assert set(known) == set(NAMES) and all(0 < len(text) <= PHRASE_LENGTH_MAX for text in known.values())
    assert phrases("en", Phrases(goodbye="Bye."))["goodbye"] == "Bye."


def test_a_reply_is_cut_where_it_can_be_spoken() -> None:
    """Short sentences are joined, abbreviations are no ends, what never ends is cut between words."""
    cut = Sentences()
    found: list[str] = []
    for piece in ("Good. Dr. Mil", "ler is free at 10.30 on Tuesday. Would", " that suit you? I ho", "pe so."):
        found += cut.add(piece)
    assert found == ["Good. Dr. Miller is free at 10.30 on Tuesday."]
    assert cut.rest() == "Would that suit you? I hope so."
    endless = Sentences()
    parts = endless.add("word " * 100)
    assert parts and all(len(part) <= 300 and part.endswith("word") for part in parts)


@pytest.mark.parametrize(("answers", "taken", "tries"), [([202], True, 1), ([503, 202], True, 2), ([422], False, 1)])
async def test_an_opt_out_is_posted_until_it_is_taken(answers: list[int], taken: bool, tries: int) -> None:
    """By the callee's key alone, with the API key; an outage is tried again, a refusal is not."""
    asked_: list[tuple[str, Any]] = []

    async def suppress(request: web.Request) -> web.Response:
        asked_.append((request.headers["Authorization"], await request.json()))
        return web.Response(status=answers[len(asked_) - 1])

    app = web.Application()
    app.router.add_post("/v1/suppressions", suppress)
    runner, port = await serving.start(app, 0)
    try:
        settings = Settings(url=f"http://127.0.0.1:{port}", api_key=Secret("k"))
        assert await suppressing.suppress(CALL_ID, settings) is taken
    finally:
        await runner.cleanup()
    assert asked_ == [("Bearer k", {"callee_key": CALLEE, "reason": "opt_out"})] * tries


async def test_an_api_that_is_away_is_given_up_in_time() -> None:
    """The fact on the log must do then."""
    assert await suppressing.suppress(CALL_ID, Settings(url="http://127.0.0.1:9")) is False
