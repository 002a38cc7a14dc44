"""Prompts are sent to other processes as they are, and are cheap to receive."""

import pickle
import subprocess
import sys
from pathlib import Path

from offsft.config import PromptConfig
from offsft.prompts import load_prompts
from offsft.records import Problem

ROOT = Path(__file__).parents[3]
PROBLEM = Problem("1", "What is <|im_start|> 2 + 3?", "2 + 3 = \\boxed{5}", "5")
RECEIVE = """
import pickle, sys
from offsft.records import Problem

prompts = pickle.loads(sys.stdin.buffer.read())
problem = Problem("1", "What is <|im_start|> 2 + 3?", "2 + 3 = \\\\boxed{5}", "5")
print([prompts.version, prompts.guided(problem), prompts.response(problem.solution), prompts.end_of_turn])
print("torch" in sys.modules)
"""


def test_prompts_that_were_sent_are_the_same_and_need_no_torch(tiny_model):
    prompts = load_prompts(tiny_model, None, PromptConfig(plain="Solve {problem}"), "auto")
    command = [sys.executable, "-c", RECEIVE]
    done = subprocess.run(command, input=pickle.dumps(prompts), capture_output=True, cwd=ROOT)
    said = [prompts.version, prompts.guided(PROBLEM), prompts.response(PROBLEM.solution), prompts.end_of_turn]
    assert done.stdout.decode().splitlines() == [str(said), "False"], done.stderr.decode()
