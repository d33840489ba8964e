"""Makes math_grades.json: verdicts of published graders of mathematics on made-up answers.

    pip install math-verify==0.9.0 sympy pylatexenc
    python3 make_math_grades.py HENDRYCKS PRM800K

HENDRYCKS is a checkout of hendrycks/math (985bdc1696), PRM800K one of openai/prm800k (7ecc794703).
Every reference is paired with its answers; each answer stands in a box behind a sentence.
"""

import itertools
import json
import pathlib
import sys

from math_verify import parse, verify

sys.path[:0] = [str(pathlib.Path(sys.argv[1]) / "modeling"), str(pathlib.Path(sys.argv[2]) / "prm800k")]
import math_equivalence  # noqa: E402
from grading import grader  # noqa: E402

ANSWERS = {
    r"42": ["42", "42.0", "-42", "+42", r"42\%", r"\$42", "42 \\text{ apples}", "x = 42", "43", "forty-two", r"\frac{84}{2}"],
    r"\frac{1}{2}": ["0.5", ".5", r"\dfrac12", r"\tfrac{1}{2}", "1/2", r"\frac{2}{4}", r"50\%", "0.51", r"\frac{-1}{-2}"],
    r"2\sqrt{3}": [r"\sqrt{12}", r"2 \sqrt 3", r"\frac{6}{\sqrt{3}}", "3.464101615", r"3\sqrt{2}", r"\sqrt{3} \cdot 2"],
    r"\frac{\pi}{3}": [r"\pi/3", r"\frac{1}{3}\pi", r"\frac{2\pi}{6}", "1.0472", "60"],
    r"x^2+2x+1": [r"(x+1)^2", r"1+2x+x^2", r"x^2 + 2x", r"y^2+2y+1", r"(x+1)(x+1)"],
    r"(1,2)": [r"(1, 2)", r"\left(1,2\right)", r"(2,1)", r"[1,2]", r"(1,\frac{4}{2})", r"1,2"],
    r"[0,\infty)": [r"[0, \infty)", r"\left[0,\infty\right)", r"(0,\infty)", r"x \ge 0", r"[0,1)"],
    r"1,2": ["2,1", "1, 2", r"1 \text{ and } 2", r"\{1,2\}", "1", "1,2,3"],
    r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}": [
        r"\begin{pmatrix}1\\2\end{pmatrix}",
        r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}",
        r"\begin{pmatrix} 1 & 2 \end{pmatrix}",
        r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}",
    ],
    r"90^\circ": ["90", r"90^{\circ}", r"90\text{ degrees}", "100"],
    r"\text{Evelyn}": ["Evelyn", r"\text{evelyn}", r"\textbf{Evelyn}", r"\text{Carla}"],
    r"\text{(C)}": ["C", r"\text{C}", "(C)", r"\text{(D)}"],
    r"x=5": ["5", "x = 5", "y=5", "x=6", "x = 2 + 3 = 5"],
    r"3+4i": [r"4i+3", r"3 + 4i", "3-4i", "7i"],
    r"16,\!471": ["16471", "16,471", "16{,}471", "16.471"],
    r"2^{10}": ["1024", r"2^{10}", "4^5", "1023"],
    r"y = 2x + 3": ["2x+3", "y=2x+3", "y - 2x = 3", "y = 2x + 4"],
}


def boxed(answer):
    return f"After some work the result is $\\boxed{{{answer}}}$."


rows = []
for reference, answers in ANSWERS.items():
    gold = parse(f"${reference}$")
    for answer in itertools.chain([reference], answers):
        rows.append({
            "reference": reference,
            "answer": answer,
            "hendrycks": bool(math_equivalence.is_equiv(answer, reference)),
            "prm800k": bool(grader.grade_answer(answer, reference)),
            "math_verify": bool(verify(gold, parse(boxed(answer)))),
        })
lines = ",\n".join(json.dumps(row) for row in rows)
pathlib.Path(__file__).with_name("math_grades.json").write_text(f"[\n{lines}\n]\n")
