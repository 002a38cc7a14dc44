"""The access log: rotation and a disk that hangs."""

import json
import threading

from services_app import lines_of

from services import access_log
from services.access_log import AccessLogFile


def test_a_file_that_was_moved_is_begun_anew(tmp_path):
    path = tmp_path / "logs" / "access.jsonl"
    log = AccessLogFile(str(path))
    log.write({"number": 1})
    lines_of(path)
    path.rename(tmp_path / "access.jsonl.1")
    log.write({"number": 2})
    assert lines_of(path) == [{"number": 2}]
    path.unlink()
    log.write({"number": 3})
    log.close()
    assert lines_of(path) == [{"number": 3}]
    assert json.loads((tmp_path / "access.jsonl.1").read_text()) == {"number": 1}


def test_a_disk_that_hangs_holds_up_nobody_and_what_is_dropped_is_counted(tmp_path, monkeypatch):
    answers, written, dropped = threading.Event(), [], []

    def hang(self, record):
        answers.wait()
        written.append(record.getMessage())

    monkeypatch.setattr(access_log, "_MOST_WAITING", 5)
    monkeypatch.setattr("logging.handlers.WatchedFileHandler.emit", hang)
    monkeypatch.setattr(access_log.LOG_LINES_DROPPED, "add", lambda: dropped.append(1))
    log = access_log.AccessLogFile(str(tmp_path / "access.jsonl"))
    for number in range(20):
        log.write({"number": number})  # would not return if it waited
    answers.set()
    log.close()
    assert len(written) + len(dropped) == 20
    assert len(dropped) >= 14
