//! Tests of every renderer against the same cells.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Int64Type};

use super::*;
use crate::cells::{Cell, Content, Row};

/// Every mark and every kind of content, with texts that each format must escape.
fn grid() -> Cells {
    let number = |value: f64| Cell { content: Content::Number(value), ..Cell::default() };
    let row = |label: &str, cells: Vec<Cell>| Row { labels: vec![label.to_owned()], cells };
    Cells {
        caption: Some("Accuracy in %, 50 & more".to_owned()),
        label: Some("tab:main".to_owned()),
        stubs: vec!["model".to_owned()],
        headings: vec!["gsm8k".to_owned(), "n".to_owned(), "note".to_owned()],
        rows: vec![
            row(
                "a_b|c",
                vec![
                    Cell { bold: true, spread: Some(0.004), difference: Some(-0.01), ..number(0.7123) },
                    Cell { content: Content::Integer(3), ..Cell::default() },
                    Cell { content: Content::Text("x, \"y\"\n<z>".to_owned()), ..Cell::default() },
                ],
            ),
            row("d", vec![Cell { underline: true, ..number(-0.05) }, Cell::default(), Cell::default()]),
        ],
        digits: Some(1),
        percent: false,
        notes: vec![],
    }
}

fn shown(format: Format) -> String {
    cells(&grid(), format, &Style::default())
}

#[test]
fn text_lines_up() {
    let expected = "\
Accuracy in %, 50 & more

model             gsm8k  n  note
-----  ----------------  -  ----------
a_b|c  0.7 ± 0.0 (0.0)*  3  x, \"y\"↵<z>
d                 -0.1_  –  –
";
    assert_eq!(shown(Format::Text), expected);
}

#[test]
fn marks_may_be_codes_and_columns_cut() {
    let style = Style { ansi: true, max_width: Some(6) };
    let text = cells(&grid(), Format::Text, &style);
    assert!(text.contains("\x1b[1m0.7 ±…\x1b[0m"), "{text}");
    assert!(text.contains("\x1b[4m-0.1\x1b[0m"), "{text}");
    assert!(text.contains("x, \"y…"), "{text}");
}

#[test]
fn wide_characters_count_twice_and_codes_are_made_harmless() {
    let name: ArrayRef = Arc::new(StringArray::from(vec!["数学", "a\x1b[2J"]));
    let n: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let batch = RecordBatch::try_from_iter([("name", name), ("n", n)]).unwrap();
    let text = table(&Table::new(batch.schema(), vec![batch]), Format::Text, &Style::default()).unwrap();
    assert_eq!(text, "name   n\n-----  -\n数学   1\na\u{fffd}[2J  2\n");
}

#[test]
fn markdown_is_escaped() {
    assert_eq!(
        shown(Format::Markdown),
        "Accuracy in %, 50 & more\n\n\
         | model | gsm8k | n | note |\n\
         | --- | ---: | ---: | --- |\n\
         | a_b\\|c | **0.7** ± 0.0 (0.0) | 3 | x, \"y\"<br>\\<z> |\n\
         | d | <u>-0.1</u> | – | – |\n"
    );
}

#[test]
fn latex_is_escaped() {
    assert_eq!(
        shown(Format::Latex),
        r"% needs \usepackage{booktabs}
\begin{table}
  \centering
  \caption{Accuracy in \%, 50 \& more}
  \label{tab:main}
  \begin{tabular}{lrrl}
    \toprule
    model & gsm8k & n & note \\
    \midrule
    a\_b\textbar{}c & \textbf{0.7} $\pm$ 0.0 (0.0) & 3 & x, ''y'' \textless{}z\textgreater{} \\
    d & \underline{$-$0.1} & -- & -- \\
    \bottomrule
  \end{tabular}
\end{table}
"
    );
}

#[test]
fn latex_compiles() {
    use std::process::Command;
    if Command::new("pdflatex").arg("--version").output().is_err() {
        println!("skipped: there is no pdflatex");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut grid = grid();
    grid.rows.push(Row { labels: vec!["[0] ~^\\#{}$*".to_owned()], cells: grid.rows[0].cells.clone() });
    let body = cells(&grid, Format::Latex, &Style::default());
    let document =
        format!("\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{body}\\end{{document}}\n");
    std::fs::write(folder.path().join("t.tex"), document).unwrap();
    let out = Command::new("pdflatex")
        .args(["-interaction=nonstopmode", "-halt-on-error", "t.tex"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn html_is_escaped() {
    let notes = vec!["a < b".to_owned()];
    assert_eq!(
        cells(&Cells { notes, ..grid() }, Format::Html, &Style::default()),
        "<figure>\n<table>\n<caption>Accuracy in %, 50 &amp; more</caption>\n<thead>\n\
         <tr><th scope=\"col\">model</th><th scope=\"col\" style=\"text-align: right\">gsm8k</th>\
         <th scope=\"col\" style=\"text-align: right\">n</th><th scope=\"col\">note</th></tr>\n</thead>\n<tbody>\n\
         <tr><th scope=\"row\">a_b|c</th><td style=\"text-align: right\"><strong>0.7</strong> ± 0.0 (0.0)</td>\
         <td style=\"text-align: right\">3</td><td>x, &quot;y&quot;<br>&lt;z&gt;</td></tr>\n\
         <tr><th scope=\"row\">d</th><td style=\"text-align: right\"><u>-0.1</u></td>\
         <td style=\"text-align: right\">–</td><td>–</td></tr>\n</tbody>\n</table>\n<p>Note: a &lt; b</p>\n</figure>\n"
    );
}

#[test]
fn stars_are_raised() {
    let mut starred = grid();
    starred.rows[0].cells[0].stars = 2;
    let shown = |format| cells(&starred, format, &Style::default());
    assert!(shown(Format::Text).contains("0.7^** ± 0.0 (0.0)*"), "{}", shown(Format::Text));
    assert!(shown(Format::Markdown).contains("**0.7**<sup>\\*\\*</sup> ± 0.0"), "{}", shown(Format::Markdown));
    assert!(shown(Format::Latex).contains("\\textbf{0.7}$^{**}$ $\\pm$ 0.0"), "{}", shown(Format::Latex));
    assert!(shown(Format::Html).contains("<strong>0.7</strong><sup>**</sup> ± 0.0"), "{}", shown(Format::Html));
    assert!(shown(Format::Csv).contains("0.7^** ± 0.0"), "{}", shown(Format::Csv));
    let json: serde_json::Value = serde_json::from_str(&shown(Format::Json)).unwrap();
    assert_eq!(json["rows"][0]["cells"]["gsm8k"]["stars"], 2);
    assert!(json["rows"][1]["cells"]["gsm8k"].get("stars").is_none());
}

#[test]
fn csv_is_rfc_4180() {
    assert_eq!(
        shown(Format::Csv),
        "model,gsm8k,n,note\r\na_b|c,0.7 ± 0.0 (0.0),3,\"x, \"\"y\"\"\n<z>\"\r\nd,-0.1,,\r\n"
    );
}

#[test]
fn json_has_the_numbers_behind() {
    let json: serde_json::Value = serde_json::from_str(&shown(Format::Json)).unwrap();
    assert_eq!(json["caption"], "Accuracy in %, 50 & more");
    let cell = &json["rows"][0]["cells"]["gsm8k"];
    assert_eq!((cell["value"].as_f64(), cell["spread"].as_f64()), (Some(0.7123), Some(0.004)));
    assert_eq!((&cell["text"], &cell["bold"]), (&"0.7 ± 0.0 (0.0)".into(), &true.into()));
    assert!(json["rows"][1]["cells"]["n"]["value"].is_null());
}

fn nested() -> Table {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
    let role: ArrayRef = Arc::new(StringArray::from(vec!["user", "a \"b\""]));
    let structs = StructArray::from(vec![(Arc::new(Field::new("role", DataType::Utf8, true)), role)]);
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("list", Arc::new(list) as ArrayRef, true),
        ("struct", Arc::new(structs), true),
        ("float", Arc::new(Float64Array::from(vec![Some(0.1), None])), true),
        ("flag", Arc::new(BooleanArray::from(vec![true, false])), true),
        ("text", Arc::new(StringArray::from(vec![Some(""), None])), true),
    ])
    .unwrap();
    Table::new(batch.schema(), vec![batch])
}

#[test]
fn any_table_can_be_shown() {
    let shown = |format| table(&nested(), format, &Style::default()).unwrap();
    assert_eq!(
        shown(Format::Json),
        "[\n{\"list\":[1,null],\"struct\":{\"role\":\"user\"},\"float\":0.1,\"flag\":true,\"text\":\"\"},\n\
         {\"list\":null,\"struct\":{\"role\":\"a \\\"b\\\"\"},\"float\":null,\"flag\":false,\"text\":null}\n]\n"
    );
    assert_eq!(
        shown(Format::Csv),
        "list,struct,float,flag,text\r\n\"[1,null]\",\"{\"\"role\"\":\"\"user\"\"}\",0.1,true,\"\"\r\n\
         ,\"{\"\"role\"\":\"\"a \\\"\"b\\\"\"\"\"}\",,false,\r\n"
    );
    assert_eq!(
        shown(Format::Text).lines().map(str::trim_end).collect::<Vec<_>>(),
        [
            "list      struct              float  flag   text",
            "--------  ------------------  -----  -----  ----",
            "[1,null]  {\"role\":\"user\"}       0.1  true",
            "–         {\"role\":\"a \\\"b\\\"\"}      –  false  –",
        ]
    );
    let empty = Table::empty(nested().schema().clone());
    assert_eq!(table(&empty, Format::Json, &Style::default()).unwrap(), "[]\n");
    assert_eq!(table(&empty, Format::Csv, &Style::default()).unwrap(), "list,struct,float,flag,text\r\n");
}

#[test]
fn formats_have_names() {
    for name in Format::NAMES {
        assert!(name.parse::<Format>().is_ok());
    }
    let said = "odt".parse::<Format>().expect_err("unknown");
    assert_eq!(said, "\"odt\" is not one of text, md, latex, html, csv, json");
}

#[test]
fn notes_stand_below_the_table_where_the_format_has_a_place() {
    let cells = Cells { notes: vec!["3 rows of a_b failed".into(), "and <more>".into()], ..grid() };
    let added = |format: Format| {
        let (with, without) =
            (super::cells(&cells, format, &Style::default()), super::cells(&grid(), format, &Style::default()));
        let same = with.chars().zip(without.chars()).take_while(|(a, b)| a == b).count();
        with.chars().skip(same).take(with.chars().count() - without.chars().count()).collect::<String>()
    };
    assert_eq!(added(Format::Text), "\nnote: 3 rows of a_b failed\nnote: and <more>\n");
    assert_eq!(added(Format::Markdown), "\nNote: 3 rows of a_b failed\n\nNote: and \\<more>\n");
    assert_eq!(added(Format::Csv), "");
    let latex = super::cells(&cells, Format::Latex, &Style::default());
    let end = "  \\end{tabular}\n\n  {\\footnotesize Note: 3 rows of a\\_b failed\\par}\n\n  \
        {\\footnotesize Note: and \\textless{}more\\textgreater{}\\par}\n\\end{table}\n";
    assert!(latex.ends_with(end), "{latex}");
    let json: serde_json::Value =
        serde_json::from_str(&super::cells(&cells, Format::Json, &Style::default())).expect("JSON");
    assert_eq!(json["notes"][1], "and <more>");
}
