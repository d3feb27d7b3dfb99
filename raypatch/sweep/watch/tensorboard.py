"""A trial's event file: the rows of epochs.jsonl once more, as TensorBoard reads them."""

import contextlib
import logging
import time
from typing import Any

from raypatch.results import EpochRow, TrialPaths, read_epochs

logger = logging.getLogger(__name__)


class EventFile:
    """Writes each epoch to the event file of a trial; on resume, earlier epochs are written anew.

    Any write happens in the caller's thread. tensorboardX's SummaryWriter would leave it to a
    thread that ends on a full disk, after which training waits for ever for a place in its queue.
    """

    def __init__(self, paths: TrialPaths) -> None:
        self.paths = paths
        self._writer: Any = None
        self._broken = False

    def epoch(self, row: EpochRow) -> None:
        """Write a row that epochs.jsonl already holds.

        A full disk ends the events of this trial, not the trial.
        """
        if self._broken:
            return
        try:
            if self._writer is None:
                self._begin()
            else:
                self._write(row, time.time())
            self._writer.flush()
        except OSError as error:
            self._broken = True
            logger.warning("no TensorBoard events from epoch %d on: %s", row.epoch, error)

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _begin(self) -> None:
        """Start a new file with every epoch so far, dated as if the trial had never paused."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        for stale in self.paths.event_files():
            stale.unlink()
        self._writer = EventsWriter(str(self.paths.folder / "events"))
        rows = read_epochs(self.paths.epochs)
        when = time.time() - sum(row.seconds for row in rows)
        # At this event, a TensorBoard that is already open forgets the epochs of the old file.
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=when, step=1, session_log=start))
        for row in rows:
            when += row.seconds
            self._write(row, when)

    def _write(self, row: EpochRow, when: float) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = []
        for name, value in row.flat().items():
            if name != "epoch":
                values.append(Summary.Value(tag=tag_of(name), simple_value=value))
        summary = Summary(value=values)
        self._writer.write_event(Event(wall_time=when, step=row.epoch, summary=summary))


def tag_of(column: str) -> str:
    """The chart of a column of epochs.jsonl; charts before a slash share a section: val/loss, val/auc."""
    return column.replace("_", "/", 1) if column.startswith(("train_", "val_")) else column
