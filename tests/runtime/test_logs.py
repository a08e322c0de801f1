"""Logs: one JSON object a line, static messages with fields, and no telephone number whoever wrote it."""

from __future__ import annotations

import json
import logging

from runtime.logs import SAME_LINES_MAX, SAME_LINES_S, JsonLines, Log, Sparing


def line(record: logging.LogRecord) -> dict:
    return json.loads(JsonLines("serve").format(record))


def test_a_record_is_one_json_line_with_its_fields(caplog) -> None:
    """The process, the message, and what is known."""
    with caplog.at_level(logging.INFO):
        Log("x").info("dial sent", call_id="abc", attempt=2)
    found = line(caplog.records[-1])
    assert (found["message"], found["call_id"], found["attempt"], found["process"]) == ("dial sent", "abc", 2, "serve")


def test_a_number_in_a_librarys_message_is_blotted_out() -> None:
    """Promise 7 holds for who does not know it."""
    record = logging.LogRecord("lib", logging.WARNING, "f", 1, "dialing %s failed", ("+12125550123",), None)
    assert "2125550123" not in JsonLines("serve").format(record)


def test_a_number_in_a_trace_is_blotted_out(caplog) -> None:
    """Exceptions are text from outside too."""
    try:
        raise ValueError("+12125550123 is busy")
    except ValueError as error:
        Log("x").crash("failed", error)
    text = JsonLines("serve").format(caplog.records[-1])
    assert "2125550123" not in text
    assert json.loads(text)["error"] == "ValueError"


def test_an_alarm_says_that_it_is_one(caplog) -> None:
    """Somebody must look."""
    Log("x").alarm("fence not confirmed")
    assert line(caplog.records[-1])["alarm"] is True


def test_what_a_library_repeats_without_end_is_written_a_few_times_and_counted() -> None:
    """Without a broker aiokafka says thousands of lines a second: the log stays bounded, and says what it left out."""
    sparing = Sparing()

    def says(name: str, at: float) -> logging.LogRecord | None:
        record = logging.LogRecord(name, logging.ERROR, "client.py", 435, "Unable connect", (), None)
        record.created = at
        return record if sparing.filter(record) else None

    written = [says("aiokafka", 100.0 + n / 1000) for n in range(3000)]
    assert sum(record is not None for record in written) == SAME_LINES_MAX
    assert says("aiokafka.consumer.fetcher", 103.0) is not None, "another library's line is its own"
    assert all(says("dialer.owner", 103.0) is not None for _ in range(100)), "ours are never left out"
    following = says("aiokafka", 100.0 + SAME_LINES_S)
    assert following is not None
    assert line(following)["left_out"] == 3000 - SAME_LINES_MAX
