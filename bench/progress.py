# How far the run is: one line that is drawn anew on a terminal, and plain lines,
# one for each part, where the output goes to a file.
import shutil
import sys
import time


def clock(seconds):
    return f"{int(seconds) // 60:d}:{int(seconds) % 60:02d}"


class Progress:
    """Parts weigh what they are expected to take, in seconds."""

    def __init__(self, weights):
        self.total = sum(weights)
        self.done = 0.0
        self.weight = 0.0
        self.label = ""
        self.begin = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.drawn = 0.0

    def part(self, label, weight):
        self.done += self.weight
        self.weight = weight
        self.label = label
        self.draw(0.0)
        if not self.terminal:
            print(f"[{self.percent(0.0):3.0f}% {clock(time.monotonic() - self.begin)}] {label}")

    def percent(self, within):
        return min(100.0, 100.0 * (self.done + self.weight * within) / self.total)

    def tick(self, within, detail=""):
        if time.monotonic() - self.drawn > 0.2:
            self.draw(within, detail)

    def draw(self, within, detail=""):
        if not self.terminal:
            return
        self.drawn = time.monotonic()
        percent = self.percent(within)
        bar = "#" * int(percent / 4)
        line = f"[{bar:<25}] {percent:3.0f}%  {clock(self.drawn - self.begin)}  {self.label} {detail}"
        print(f"\r\033[K{line[:shutil.get_terminal_size().columns - 1]}", end="")

    def say(self, text):
        print(f"\r\033[K{text}" if self.terminal else f"    {text}")

    def finish(self):
        if self.terminal:
            print("\r\033[K", end="")
        print(f"finished after {clock(time.monotonic() - self.begin)}")
