"""The page, served as a user serves it, in a browser and through its interface.

The test in a browser runs where Debian's chromium and chromium-driver are installed.
"""

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import gradio_client
import numpy as np
import PIL.Image
import pytest
import soundfile
import tiny_models
from conftest import chirp
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from audiotag_jax.inference import Tagger

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("models") / "cnn6"
  return tiny_models.write(folder, "Cnn6", bias=(-1.0, -3.0, 2.0))


def free_port():
  with socket.socket() as sock:
    sock.bind(("127.0.0.1", 0))
    return sock.getsockname()[1]


def start(model_dir, port, *args):
  command = [sys.executable, str(REPOSITORY / "tools/demo_app.py")]
  return subprocess.Popen(
    [*command, f"--checkpoint={model_dir}", f"--port={port}", *args],
    env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


@pytest.fixture(scope="module")
def url(model_dir):
  process = start(model_dir, free_port(), "--max_mb=1")
  try:
    assert process.stdout.readline() == f"loading {model_dir}\n"
    assert select.select([process.stdout], [], [], 120)[0], "it serves no page"
    url, _, rest = process.stdout.readline().partition(" ")
    assert rest == "shows the page; Ctrl-C ends it\n", url + rest
    yield url
  finally:
    process.terminate()
    process.communicate(timeout=30)


@pytest.fixture(scope="module")
def ask(url):
  """Returns the function behind the page's button, which takes a file."""
  client = gradio_client.Client(url, verbose=False, analytics_enabled=False)

  def predict(path):
    file = gradio_client.handle_file(str(path)) if path else None
    return client.predict(file, api_name="/tag")

  return predict


def test_a_sound_is_tagged_and_drawn(ask, model_dir, tmp_path):
  path = tmp_path / "a b & é.flac"
  waveform = chirp(1.0, rate_hz=44_100)
  soundfile.write(path, np.stack([waveform, waveform], axis=1), 44_100)
  tags, scores, picture = ask(path)
  samples, rate_hz = soundfile.read(path, dtype="float32")
  expected = Tagger.load(model_dir).tag(samples.mean(axis=1), rate_hz)
  assert tags == "Heavy rain"
  assert scores["label"] == "Heavy rain"
  names = ["Heavy rain", "Bell", "Rain"]
  assert [row["label"] for row in scores["confidences"]] == names
  shown = [row["confidence"] for row in scores["confidences"]]
  np.testing.assert_allclose(shown, expected[[2, 0, 1]], atol=1e-5)
  with PIL.Image.open(picture) as image:
    assert image.width > image.height > 300
    assert np.ptp(np.asarray(image.convert("L"))) > 200


@pytest.fixture
def browser(tmp_path):
  """Chromium without a window, which logs its requests."""
  options = webdriver.ChromeOptions()
  for argument in (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
    *("no-first-run", f"user-data-dir={tmp_path}/profile", "window-size=1300,1250"),
  ):
    options.add_argument(f"--{argument}")
  options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
  service = webdriver.ChromeService(shutil.which("chromedriver"))
  driver = webdriver.Chrome(options=options, service=service)
  try:
    yield driver
  finally:
    driver.quit()


@pytest.mark.skipif(not shutil.which("chromedriver"), reason="no chromium-driver")
def test_a_sound_is_tagged_in_a_browser(url, browser, tmp_path):
  soundfile.write(tmp_path / "rain.wav", chirp(2.0, rate_hz=44_100), 44_100)
  wait = WebDriverWait(browser, 60)
  find = browser.find_element
  browser.get(url)
  wait.until(lambda _: find(By.CSS_SELECTOR, "input[type=file]")).send_keys(
    str(tmp_path / "rain.wav")
  )
  wait.until(lambda _: "rain.wav" in browser.page_source)
  find(By.XPATH, "//button[normalize-space()='Tag']").click()
  wait.until(
    lambda _: find(By.TAG_NAME, "textarea").get_attribute("value") == "Heavy rain"
  )
  assert "Heavy rain\n" in find(By.TAG_NAME, "body").text
  picture = wait.until(lambda _: find(By.CSS_SELECTOR, ".image-frame img"))
  wait.until(lambda _: int(picture.get_attribute("naturalWidth")) > 600)
  messages = [
    json.loads(row["message"])["message"] for row in browser.get_log("performance")
  ]
  asked = {
    message["params"]["request"]["url"]
    for message in messages
    if message["method"] == "Network.requestWillBeSent"
  }
  assert url in asked
  assert [x for x in asked if x.startswith("http") and not x.startswith(url)] == []
  faults = [row for row in browser.get_log("browser") if row["level"] == "SEVERE"]
  assert faults == []


def test_mistakes_are_one_line(ask, tmp_path):
  (tmp_path / "text.wav").write_text("no audio")
  soundfile.write(tmp_path / "long.flac", np.zeros(601 * 1000), 1000)
  for name, message in {
    None: "Drop a sound first, or record one",
    "text.wav": "text.wav cannot be decoded (libsndfile: Format not recognised",
    "long.flac": "long.flac is longer than 600 s: give it to tools/tag.py",
  }.items():
    with pytest.raises(gradio_client.exceptions.AppError) as info:
      ask(tmp_path / name if name else None)
    assert message in str(info.value)
    assert "\n" not in str(info.value)


def test_a_file_over_the_limit_is_refused_by_the_server(url):
  body = (
    b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
    + bytes(2_000_000)
    + b"\r\n--x--\r\n"
  )
  headers = {"Content-Type": "multipart/form-data; boundary=x"}
  request = urllib.request.Request(f"{url}gradio_api/upload", body, headers)
  with pytest.raises(urllib.error.HTTPError) as info:
    urllib.request.urlopen(request, timeout=30)
  assert info.value.code == 413
  info.value.close()


def test_the_page_is_this_computers_alone_and_asks_no_other(url):
  port = int(url.rstrip("/").rsplit(":", 1)[1])
  with urllib.request.urlopen(url, timeout=30) as response:
    page = response.read().decode()
  assert "What do you hear?" in page
  assert "fonts.googleapis.com" not in page
  # A server at all addresses would answer at every loopback address.
  with pytest.raises(ConnectionRefusedError):
    socket.create_connection(("127.0.0.2", port), timeout=5)


def test_a_port_in_use_and_no_model_are_one_line(url, model_dir, tmp_path):
  port = int(url.rstrip("/").rsplit(":", 1)[1])
  for directory, message in {
    model_dir: f"the page cannot be served at 127.0.0.1:{port}: give another --port",
    tmp_path: f"{tmp_path} has no model.json",
  }.items():
    process = start(directory, port)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    first, last = output.splitlines()
    assert first == f"loading {directory}"
    assert last.startswith(f"error: {message}")
