"""Runs a program and its tests. Says on what was standard output how many tests there are, then a JSON line a test: its
number, verdict, message."""

import copy
import json
import math
import os
import signal
import sys

if hasattr(sys, "set_int_max_str_digits"):
    sys.set_int_max_str_digits(0)
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "spec.json")) as file:
    spec = json.load(file)
report = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
nowhere = os.open(os.devnull, os.O_RDWR)
for descriptor in range(3):
    os.dup2(nowhere, descriptor)


class OutOfTime(BaseException):
    pass


def out_of_time(*_):
    raise OutOfTime


signal.signal(signal.SIGALRM, out_of_time)


def attempt(work):
    signal.setitimer(signal.ITIMER_REAL, spec["seconds"])
    try:
        work()
        return "pass", ""
    except OutOfTime:
        return "timeout", ""
    except AssertionError as error:
        return "wrong_answer", str(error)
    except BaseException as error:
        return "failed", f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def say(number, verdict, message):
    report.write(json.dumps([number, verdict, message[:500]]) + "\n")
    report.flush()


def snippets():
    names = {}
    print(len(spec["tests"]), file=report, flush=True)
    verdict, message = attempt(lambda: exec(spec["program"], names))
    for number, test in enumerate(spec["tests"]):
        if verdict == "pass":
            say(number, *attempt(lambda: exec(test, names)))
        else:
            # A program that asserts something of its own at the start has not met a test.
            say(number, "failed" if verdict == "wrong_answer" else verdict, message)


def close(out, expected, atol):
    if isinstance(expected, (list, tuple)):
        return len(out) == len(expected) and all(close(a, b, atol) for a, b in zip(out, expected))
    if out == expected:
        return True
    return abs(out - expected) <= atol + 1e-7 * abs(expected)


def floats(value):
    return isinstance(value, float) or isinstance(value, (list, tuple)) and bool(value) and all(isinstance(one, float) for one in value)


def polynomial(coefficients, x):
    return sum(c * math.pow(x, i) for i, c in enumerate(coefficients))


def surface(edge, height):
    return round(edge**2 + 4 * (edge * math.sqrt((edge / 2) ** 2 + height**2)) / 2)


def digit_distance(a, b):
    a, b = str(a), str(b)
    width = max(len(a), len(b))
    return sum(abs(int(x) - int(y)) for x, y in zip(a.zfill(width), b.zfill(width)))


SETS = {"similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum", "intersection_array", "find_dissimilar", "Diff"}
NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}


def compare(name, arguments, out, expected, atol):
    if name == "find_zero" and spec["dataset"] == "humaneval":
        assert abs(polynomial(*arguments, out)) <= atol
        return
    same = out == expected
    if spec["dataset"] == "mbpp":
        if name == "are_equivalent":
            same = True
        elif name == "sum_div":
            same = same or out == 0
        elif name == "surface_Area":
            same = same or abs(out - surface(*arguments)) <= atol
        elif name == "digit_distance_nums":
            same = same or out == digit_distance(*arguments)
        elif name in SETS:
            same = set(out) == set(expected)
        elif name in NOT_NONE:
            same = out == expected if isinstance(out, bool) else expected == (out is not None)
    if atol == 0 and floats(expected):
        atol = 1e-6
    if not same and atol != 0:
        assert type(out) == type(expected)
        same = close(out, expected, atol)
    assert same, f"{name}{tuple(arguments)!r:.100} gave {out!r:.100}, expected {expected!r:.100}"


def tuples(value):
    return tuple(tuples(one) for one in value) if isinstance(value, list) else value


def each(kind, values):
    return [kind(value) for value in values]


def arguments_of(task, given):
    """JSON has no tuples, sets or complex numbers; which arguments of MBPP are such is known by the number of the task."""
    if spec["dataset"] != "mbpp":
        return given
    first, rest = given[:1], given[1:]
    if task in {2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809}:
        return each(tuple, given)
    if task in {63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780}:
        return [each(tuple, one) for one in given]
    if task in {75, 413, 444, 753}:
        return [each(tuple, given[0]), given[1]]
    if task in {106, 750}:
        return [given[0], tuple(given[1])]
    if task == 115:
        return [[set(one) if isinstance(one, list) and one else {} for one in given[0]]]
    if task == 124:
        return [float(given[0]), complex(given[1])]
    if task in {250, 405, 446, 617, 720, 763, 808, 307}:
        return each(tuple, first) + rest
    if task in {259, 401, 445}:
        return [tuple(each(tuple, one)) for one in given]
    if task == 278:
        return [tuple(tuple(one) if isinstance(one, list) else one for one in given[0])]
    if task == 722:
        return [{key: tuple(value) for key, value in given[0].items()}] + rest
    if task == 252:
        return [complex(given[0])]
    if task in {580, 615, 791}:
        return list(tuples(given))
    return given


def plus():
    name = spec["entry_point"]
    task = int(spec["task"].rsplit("/", 1)[-1])
    reference, names = {}, {}
    inputs = [given for text in spec["inputs"] for given in json.loads(text)]
    print(len(inputs), file=report, flush=True)
    exec(spec["reference"], reference)
    begun, problem = attempt(lambda: exec(spec["program"], names))
    for number, given in enumerate(inputs):
        given = arguments_of(task, given)
        expected = reference[name](*copy.deepcopy(given))
        if spec["dataset"] == "mbpp" and name in NOT_NONE:
            expected = expected is not None
        if begun != "pass":
            say(number, "failed" if begun == "wrong_answer" else begun, problem)
            continue
        out = []
        asked = copy.deepcopy(given)
        verdict, message = attempt(lambda: out.append(names[name](*asked)))
        if verdict == "pass":
            verdict, message = attempt(lambda: compare(name, given, out[0], expected, spec["atol"]))
        say(number, "failed" if out == [] and verdict == "wrong_answer" else verdict, message)


snippets() if "tests" in spec else plus()
report.flush()
# Threads that the program left do not keep it alive.
os._exit(0)
