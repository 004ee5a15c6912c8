"""The end of a real worker: one that hangs in it takes no tasks, so it is ended, and what supervises it starts another one."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from runbook.celery import HUNG, WORKER_READY
from runbook.stores import RedisServer
from tests.waiting import wait_for

HANGS = """
import time
from celery.concurrency.prefork import TaskPool
from runbook import celery

if {hangs}:
    celery.ENDED_WITHIN = 1.0
    TaskPool.on_stop = TaskPool.on_terminate = lambda pool: time.sleep(600)
celery.app.worker_main(["worker", "--concurrency", "1", "--without-mingle", "--without-gossip"])
"""


@pytest.fixture
def worker(tmp_path):
    """`worker(hangs)` is one that takes tasks, and hangs in its end if it `hangs`; it has a Redis of its own."""
    broker, started = RedisServer(tmp_path / "redis"), []
    broker.start()
    log = tmp_path / "worker.log"

    def start(hangs):
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", HANGS.format(hangs=hangs)],
                env={**os.environ, "REDIS_URL": broker.url},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        started.append(process)
        wait_for(lambda: WORKER_READY in log.read_text(), what=f"the worker ({log})")
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    broker.stop()


@pytest.mark.parametrize(("hangs", "code"), [(True, HUNG), (False, 0)])
def test_a_worker_ends_with_its_pool_when_it_is_told_to(worker, hangs, code):
    process = worker(hangs)
    pool = psutil.Process(process.pid).children(recursive=True)
    assert pool
    process.terminate()
    assert process.wait(60) == code
    assert psutil.wait_procs(pool, timeout=10)[1] == []
