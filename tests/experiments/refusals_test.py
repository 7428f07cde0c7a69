"""A bad request is exit code 2, one line, and nothing written."""

import pytest

from tests import binaries

TRUTH = "--teacher=ground_truth"
OUT = "OUT"  # stands for a folder that is not there

CASES = {
  "benchmark": [
    (["--what=nothing"], "--what=nothing: unknown; known are all, student"),
    (["--size=9"], "--size=9: HEIGHTxWIDTH"),
    (["--repeats=0"], "--repeats=0: at least 1"),
  ],
  "compare": [
    ([], "--streams=URI,... is missing"),
    (["--streams=synthetic:park"], "--output=DIR is missing"),
    (["--smoke", "--stream=synthetic:park"], "here use --streams"),
    (["--smoke", "--systems=jit,nix"], "no system 'nix'; known are jit"),
    (["--smoke", "--repeat=0"], "--repeat=0: at least 1"),
    (["--smoke", "--systems=frozen", "--u_max=8"], "none of the systems uses"),
    (["--smoke", "--streams=camera:0"], "is live"),
    (["--smoke", "--streams=a", "--streams_file=b"], "give one of them"),
  ],
  "describe": [
    (["--num_classes=1"], "--num_classes=1"),
    (["--height=7"], "--height=7"),
    (["--smoke", "runs"], "unknown argument 'runs'"),
    (["--model=shadow:num_units=2"], "--model=shadow:num_units=2"),
  ],
  "edge_client": [
    ([], "--server=ws://HOST:PORT is missing"),
    (["--server=http://x"], "as ws://HOST:PORT"),
    (["--server=ws://127.0.0.1:1", "--system=jit"], "it is the server's"),
    (["--server=ws://127.0.0.1:1", "--codec=png"], "codec"),
  ],
  "edge_server": [
    (["--listen=0.0.0.0:0"], "can be reached from other machines"),
    ([TRUTH], "a stream of its own"),
    (["--stream=synthetic:park"], "--stream is not used here"),
    (["--max_key_rate=0"], "--max_key_rate=0.0: above 0"),
    (["--timeout=nan"], "--timeout=nan"),
    (["--max_sessions=0"], "max_sessions"),
  ],
  "fleet": [
    ([], "--streams=FILE is missing"),
    (["--streams=no/such/list"], "--streams=no/such/list: No such file"),
    (["--smoke", "--stream=a.mp4"], "--stream: the streams of a fleet are in"),
    (["--smoke", "--wandb"], "--wandb: a process has one run there"),
    (["--smoke", "--teacher_rate=0"], "--teacher_rate=0.0: above 0"),
    (["--smoke", "--devices=-1"], "--devices=-1: -1 is not a positive integer"),
    (["--smoke", "--ray=nowhere"], "--ray=nowhere: auto, local or HOST:PORT"),
    (["--simulate"], "--runs=NAME=DIR,... is missing"),
  ],
  "online_distill": [
    ([TRUTH, "--stream=folder:/nowhere"], "nowhere"),
    ([TRUTH, "--stream=carrier:pigeon"], "synthetic:"),
    ([TRUTH, "--height=0"], "--height=0"),
    ([TRUTH, "--a_thresh=high"], "a_thresh"),
    ([TRUTH, "--classes=unicorn"], "person"),
    (["--teacher=nobody"], "ground_truth"),
    (["--teacher=a.b:c", "--teacher_process"], "a.b:c cannot be imported"),
    ([TRUTH, "--serve=0.0.0.0:0"], "--serve_token=SECRET"),
    ([TRUTH, "--serve_token=abc"], "--serve=HOST:PORT"),
  ],
  "pretrain": [
    (["--data=imagenet"], "synthetic, coco:DIR or torchvision:FILE"),
    (["--data=torchvision:m.pth"], "needs --model=mobilenet_v2, not jitnet"),
    (["--num_steps=0"], "--num_steps=0: above 0"),
    (["--stream=synthetic:park", "--every=0"], "--every=0: at least 1"),
    (["--devices=0"], "--devices=0: at least 1"),
    (["--devices=2", "--batch=3"], "3 frames does not divide by 2 devices"),
    (["--num_processes=2"], "go with --coordinator"),
    (["--coordinator=nowhere"], "--coordinator=nowhere: HOST:PORT or auto"),
    (["--coordinator=a:1"], "--num_processes and --process_id are missing"),
    (
      ["--coordinator=a:1", "--num_processes=2", "--process_id=2"],
      "--process_id=2 of --num_processes=2: count from 0",
    ),
    (["--coordinator=auto"], "Without Slurm or MPI say HOST:PORT"),
  ],
  "record": [
    ([], "--out=DIR"),
    ([f"--out={OUT}", "--ask_every=0"], "--ask_every=0"),
    ([f"--out={OUT}", "--u_max=3"], "--u_max is not used"),
    ([f"--out={OUT}", "--teacher_process"], "--teacher_process is not used"),
  ],
  "replay": [([], "--workdir=DIR is missing")],
  "report": [([], "name a workdir"), (["/nowhere"], "no such folder")],
  "train_delta": [
    ([], "--workdir=DIR is missing"),
    (["--smoke", "--interval=0"], "--interval=0: at least 1"),
    (["--smoke", "--form=sums"], "unknown; known are convolutions, blocks"),
    (["--smoke", "--form=skip:gamma=2"], "no option 'gamma'; it has block"),
    (
      ["--smoke", "--init=random", "--form=convolutions:gamma=999"],
      "gamma=999: no layer has",
    ),
  ],
  "train_teacher": [
    ([], "--workdir=DIR is missing"),
    (["--smoke", "--batch=0"], "above 0"),
  ],
}
# Binaries of which a bad flag beside a workdir is to leave no folder.
_WITH_WORKDIR = ("edge_client", "fleet", "online_distill")


@pytest.mark.parametrize(
  ("binary", "flags", "words"),
  [(name, *case) for name, cases in CASES.items() for case in cases]
  + [(name, ["--no_such_flag=1"], "no_such") for name in CASES],
)
def test_bad_request_is_one_line(binary, flags, words, tmp_path, monkeypatch):
  monkeypatch.setenv("TMPDIR", str(tmp_path))
  out = tmp_path / "out"
  flags = [flag.replace(OUT, str(out)) for flag in flags]
  if binary in _WITH_WORKDIR or (binary == "pretrain" and flags):
    flags.append(f"--workdir={out}")
  binaries.assert_refused(binaries.run(binary, *flags), words)
  assert binary == "pretrain" or not out.exists()
