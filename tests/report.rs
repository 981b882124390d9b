//! Tables, figures and pages: what is written can be read back, and what is given does no harm.

use lacuna::report::{Cell, Table, replace_between};

const HOSTILE: &str = "<script>alert('x & \"y\"')</script>";

fn awkward() -> Table {
    let mut table = Table::new(["name", "a, b", "say \"hi\"", "two\nlines", ""]);
    table.row(("plain", "a,b", "he said \"no\"", "first\nsecond\r\nthird", ""));
    table.row((Cell::Missing, "\"", " padded ", "\r", "\u{feff}é|ü"));
    table.row((1.0 / 3.0, -0.0, f64::MIN_POSITIVE, 1e300, f64::NAN));
    table.row((i64::MAX, 0, None::<f64>, true, f64::NEG_INFINITY));
    table
}

#[test]
fn csv_with_commas_quotes_and_newlines_comes_back_as_it_was() -> lacuna::Result<()> {
    let table = awkward();
    let read = Table::from_csv(&table.to_csv())?;
    assert_eq!(read.columns(), table.columns());
    for (read, written) in read.rows().iter().flatten().zip(table.rows().iter().flatten()) {
        assert_eq!(read.exact(), written.exact());
        assert_eq!(*read == Cell::Missing, *written == Cell::Missing);
        if let Cell::Float { value, .. } = written {
            assert_eq!(read.number().map(f64::is_nan), Some(value.is_nan()));
            assert!(value.is_nan() || read.number().map(f64::to_bits) == Some(value.to_bits()));
        }
    }
    assert_eq!(read.to_csv(), table.to_csv());
    Ok(())
}

#[test]
fn csv_of_one_column_keeps_its_missing_cells() -> lacuna::Result<()> {
    let mut table = Table::new(["x"]);
    table.row([Cell::Missing]).row([""]).row([Cell::Missing]);
    assert_eq!(table.to_csv(), "x\n\n\"\"\n\n");
    assert_eq!(Table::from_csv(&table.to_csv())?, table);
    Ok(())
}

#[test]
fn csv_from_a_spreadsheet_is_read_too() -> lacuna::Result<()> {
    let table = Table::from_csv("\u{feff}a,b\r\n1,\"x\r\ny\"\r\n2,")?;
    assert_eq!(table.columns(), ["a", "b"]);
    assert_eq!(table.rows()[0], [Cell::from("1"), Cell::from("x\r\ny")]);
    assert_eq!(table.rows()[1], [Cell::from("2"), Cell::Missing]);
    Ok(())
}

#[test]
fn csv_that_is_broken_is_refused_with_its_line() {
    let cases = [
        ("", "CSV: empty: there is no header line"),
        ("a,b\n1,2\n1,2,3\n", "CSV line 3: 3 fields where the header has 2"),
        ("a\n\"x\ny\"\n\"open\n", "CSV line 4: the quote that begins a field is never closed"),
        ("a\nx\"y\n", "CSV line 2: a quote inside a field that does not begin with one"),
        ("a\n\"x\"y\n", "CSV line 2: text follows the quote that closes a field"),
    ];
    for (text, message) in cases {
        assert_eq!(Table::from_csv(text).unwrap_err().to_string(), message);
    }
}

#[test]
fn every_markdown_row_has_the_same_cells() {
    let mut table = Table::new(["a|b", "n"]);
    table.row((r"x\|y", 1)).row(("two\nlines", Cell::float(2.0, 1)));
    let markdown = table.to_markdown();
    assert_eq!(markdown, "| a\\|b | n |\n| :--- | ---: |\n| x\\\\\\|y | 1 |\n| two<br>lines | 2.0 |\n");
}

#[test]
fn a_script_in_a_table_is_shown_and_not_run() {
    let mut table = Table::new([HOSTILE]);
    table.row([HOSTILE]);
    let html = table.to_html();
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;alert(&#39;x &amp; &quot;y&quot;&#39;)"), "{html}");
}

#[test]
fn a_number_too_small_for_its_digits_is_not_shown_as_zero() {
    let shown = |value: f64| Cell::float(value, 2).show();
    assert_eq!([shown(0.0), shown(-0.0), shown(0.005), shown(0.004)], ["0.00", "0.00", "0.01", "4.00e-3"]);
    assert_eq!([shown(f64::NAN), shown(f64::INFINITY), shown(3.2e12)], ["NaN", "inf", "3.20e12"]);
}

#[test]
fn a_column_that_does_not_exist_is_an_error_that_lists_those_that_do() {
    let table = Table::new(["seed", "loss"]);
    assert_eq!(table.column("los").err().map(|e| e.to_string()).as_deref(), Some("column 'los': not among seed, loss"));
}

#[test]
fn text_between_markers_is_replaced_and_the_rest_is_kept() -> lacuna::Result<()> {
    let document = "a\n<!-- t:begin --><!-- t:end -->\nb\n<!-- u:begin -->\nkeep\n<!-- u:end -->\n";
    let once = replace_between(document, "t", "one\ntwo\n")?;
    assert_eq!(once, "a\n<!-- t:begin -->\none\ntwo\n<!-- t:end -->\nb\n<!-- u:begin -->\nkeep\n<!-- u:end -->\n");
    assert_eq!(replace_between(&once, "t", "one\ntwo\n")?, once);
    let emptied = replace_between(&once, "t", "")?;
    assert_eq!(replace_between(&emptied, "t", "")?, emptied);
    assert_eq!(
        replace_between("<!-- t:begin -->\r\n<!-- t:end -->", "t", "x\ny")?,
        "<!-- t:begin -->\r\nx\r\ny\r\n<!-- t:end -->"
    );
    Ok(())
}

#[test]
fn markers_that_are_missing_doubled_or_crossed_are_an_error() {
    let error = |document: &str, text: &str| replace_between(document, "t", text).unwrap_err().to_string();
    let (begin, end) = ("<!-- t:begin -->", "<!-- t:end -->");
    assert_eq!(error(end, ""), format!("{begin}: missing from the document"));
    assert_eq!(error(begin, ""), format!("{end}: missing from the document"));
    let doubled = format!("{begin}{begin}{end}");
    assert_eq!(error(&doubled, ""), format!("{begin}: stands 2 times in the document, not once"));
    assert_eq!(error(&format!("{end}{begin}"), ""), format!("{end}: stands before its begin"));
    let both = format!("{begin}{end}");
    assert_eq!(error(&both, end), format!("{end}: stands in the text that is to go between the markers"));
}

#[test]
fn a_mean_and_its_deviation_stand_on_one_line() -> lacuna::Result<()> {
    let text = lacuna::report::Summary::of(&[1.0, 2.0, 3.0])?.plus_minus(1);
    assert!(text.contains('±') && !text.contains(' '), "'{text}' may be broken at a space");
    Ok(())
}

mod drawn {
    use super::HOSTILE;
    use lacuna::mask::Mask;
    use lacuna::report::{Bars, Figure, Heatmap, Page, Point, Summary, Table};
    use ndarray::array;

    /// Every tag closed in its order, every attribute quoted, no bare `<` or `&`.
    fn assert_well_formed(xml: &str) {
        let mut open = Vec::new();
        let mut pieces = xml.split('<');
        assert_eq!(pieces.next(), Some(""));
        for piece in pieces {
            let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("no end of <{piece}"));
            for entity in tag.split('&').skip(1).chain(text.split('&').skip(1)) {
                assert!(["amp;", "lt;", "gt;", "quot;", "apos;", "#39;"].iter().any(|e| entity.starts_with(e)), "&{entity}");
            }
            assert!(tag.matches('"').count() % 2 == 0, "quotes of <{tag}>");
            assert!(!xml.chars().any(|c| c.is_control() && c != '\n'), "a control character");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap_or_default()),
            }
        }
        assert!(open.is_empty(), "still open: {open:?}");
    }

    fn figure() -> Figure {
        let curve = |drop: f64| (0..10).map(|i| f64::from(i) / 10.0).map(move |x| Point::new(x, 0.95 - drop * x * x));
        let seeds = Summary::of(&[0.90, 0.91, 0.93]).unwrap();
        Figure::new("Accuracy & sparsity", "sparsity", "accuracy")
            .percent_x()
            .series("magnitude", curve(0.4).collect())
            .series("wanda", curve(0.2).chain([Point::of(1.0, &seeds)]).collect())
            .series("sparse <gpt>", vec![Point::with_band(0.1, 0.9, 0.8, 0.95), Point::with_band(0.9, 0.7, 0.6, 0.8)])
    }

    #[test]
    fn a_figure_is_well_formed_names_its_series_and_is_the_same_twice() -> lacuna::Result<()> {
        let svg = figure().to_svg()?;
        assert_well_formed(&svg);
        for name in ["magnitude", "wanda", "sparse &lt;gpt&gt;", "Accuracy &amp; sparsity", "40%"] {
            assert!(svg.contains(name), "{name} is not in the figure");
        }
        assert_eq!(svg, figure().to_svg()?);
        Ok(())
    }

    #[test]
    fn control_characters_and_markup_in_words_do_no_harm() -> lacuna::Result<()> {
        let words = format!("{HOSTILE}\u{1b}[0m\0\ttab");
        let points = vec![Point::new(0.0, 1.0), Point::new(1.0, 2.0)];
        assert_well_formed(&Figure::new(&words, &words, &words).series(&words, points).to_svg()?);
        assert_well_formed(&Bars::new(&words, &words, &words, [&words]).series(&words, vec![1.0]).to_svg()?);
        Ok(())
    }

    #[test]
    fn an_empty_figure_is_an_error() {
        let empty = || Figure::new("t", "x", "y");
        assert!(empty().to_svg().is_err());
        assert!(empty().series("a", vec![]).to_svg().is_err());
        let e = empty().series("a", vec![Point::new(f64::NAN, 1.0), Point::new(1.0, f64::INFINITY)]).to_svg().unwrap_err();
        assert_eq!(e.to_string(), "figure 't': nothing to draw: 1 series, 2 points, none with a place on the axes");
        assert!(empty().log_y().series("a", vec![Point::new(1.0, 0.0)]).to_svg().is_err());
        assert!(Bars::new("t", "x", "y", Vec::<String>::new()).series("a", vec![]).to_svg().is_err());
        assert!(Bars::new("t", "x", "y", ["c"]).series("a", vec![f64::NAN]).to_svg().is_err());
        assert!(Bars::new("t", "x", "y", ["c"]).series("a", vec![1.0, 2.0]).to_svg().is_err());
    }

    #[test]
    fn a_range_that_is_none_is_an_error() {
        let figure = || figure().log_y();
        for (low, high) in [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, 1.0), (1.0, f64::INFINITY)] {
            let message = figure().y_range(low, high).to_svg().unwrap_err().to_string();
            assert!(message.starts_with("y_range: "), "{message}");
        }
    }

    #[test]
    fn numbers_without_a_place_are_left_out() -> lacuna::Result<()> {
        let odd = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e-308, 1e308, 0.5, 3.0];
        let points: Vec<Point> = odd.iter().flat_map(|x| odd.iter().map(|y| Point::with_band(*x, *y, -*y, f64::NAN))).collect();
        for figure in [Figure::new("t", "x", "y"), Figure::new("t", "x", "y").log_x().log_y().y_range(1e-3, 1.0)] {
            let svg = figure.series("odd", points.clone()).to_svg()?;
            assert_well_formed(&svg);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        Ok(())
    }

    /// The texts of an SVG with this anchor: place across, size, and text.
    fn texts(svg: &str, anchor: &str) -> Vec<(f64, f64, String)> {
        let of = |tag: &str, name: &str| tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?.parse::<f64>().ok();
        let texts = svg.split("<text").skip(1).filter(|t| t.contains(&format!("text-anchor=\"{anchor}\"")));
        let read = |text: &str| {
            let (tag, rest) = text.split_once('>')?;
            Some((of(tag, "x")?, of(tag, "font-size")?, rest.split('<').next()?.trim().to_string()))
        };
        texts.filter_map(read).collect()
    }

    #[test]
    fn labels_of_a_logarithmic_axis_do_not_run_into_one_another() -> lacuna::Result<()> {
        for (least, most) in [(4500.0, 45000.0), (1.0, 235_200.0), (1e-5, 1e7), (900.0, 1100.0), (1.0, 20.0)] {
            let points = vec![Point::new(least, 1.0), Point::new(most, 2.0)];
            let svg = Figure::new("t", "x", "y").log_x().series("s", points).to_svg()?;
            let labels: Vec<_> = texts(&svg, "middle").into_iter().filter(|(.., text)| text.parse::<f64>().is_ok()).collect();
            assert!(labels.len() >= 2, "{least} to {most}: {labels:?}");
            for pair in labels.windows(2) {
                let half = |(_, size, text): &(f64, f64, String)| 0.28 * size * text.chars().count() as f64; // no digit is wider
                let gap = (pair[1].0 - half(&pair[1])) - (pair[0].0 + half(&pair[0]));
                assert!(gap > 0.0, "{least} to {most}: {:?} and {:?} overlap by {}", pair[0], pair[1], -gap);
            }
            // 1 to 100 and 0.1 are always plain; what is larger is written one way, and what is smaller is.
            for range in [1000.0..f64::INFINITY, 0.0..0.09] {
                let here = labels.iter().filter(|(.., t)| t.parse().is_ok_and(|v| range.contains(&v)));
                let ways: std::collections::BTreeSet<bool> = here.map(|(.., t)| t.contains('e')).collect();
                assert!(ways.len() <= 1, "{least} to {most}: written in two ways: {labels:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_line_of_a_table_is_the_line_of_its_means_and_ranges() -> lacuna::Result<()> {
        let mut table = Table::new(["seed", "method", "share", "loss"]);
        for (seed, method, share, loss) in [(0, "a", 0.5, 1.0), (0, "a", 0.9, 4.0), (0, "b", 0.5, 9.0), (1, "a", 0.5, 3.0)] {
            table.row((seed, method, share, loss));
        }
        table.row((1, "a", 0.9, None::<f64>));
        assert_eq!(table.distinct("method")?, ["a", "b"]);
        let a = table.only("method", "a")?;
        assert_eq!(a.rows().len(), 4);
        let axes = || Figure::new("t", "share", "loss");
        let points = vec![Point::with_band(0.5, 2.0, 1.0, 3.0), Point::new(0.9, 4.0)];
        assert_eq!(axes().line("a", &a, "share", "loss")?.to_svg()?, axes().series("a", points.clone()).to_svg()?);

        // A level goes as far as the lines before it, with the range of all its numbers.
        let level = axes().line("a", &a, "share", "loss")?.level("b", &table, "loss")?.to_svg()?;
        let all = [0.5, 0.9].map(|x| Point::with_band(x, 4.25, 1.0, 9.0));
        assert_eq!(level, axes().series("a", points).series("b", all.to_vec()).to_svg()?);

        let error = |r: lacuna::Result<Figure>| r.unwrap_err().to_string();
        let none = "line 'c': no row has numbers in 'share' and 'loss'";
        assert_eq!(error(axes().line("c", &table.only("method", "c")?, "share", "loss")), none);
        let along = "line 'b': a level runs along other lines, and there is none";
        assert_eq!(error(axes().level("b", &table, "loss")), along);
        assert!(error(axes().line("a", &table, "shares", "loss")).contains("shares"));
        assert!(table.only("methods", "a").is_err() && table.distinct("methods").is_err());
        Ok(())
    }

    #[test]
    fn a_bar_stands_for_each_category_and_series() -> lacuna::Result<()> {
        let names: Vec<String> = (0..12).map(|layer| format!("blocks.{layer}.mlp")).collect();
        let bars = || {
            let values = |shift: f64| (0..12).map(|layer| f64::from(layer) / 12.0 - shift).collect::<Vec<f64>>();
            Bars::new("Layers", "layer", "sparsity", &names).series("owl", values(0.0)).series("erk", values(0.5))
        };
        let svg = bars().to_svg()?;
        assert_well_formed(&svg);
        assert!(names.iter().chain(&["owl".to_string(), "erk".to_string()]).all(|name| svg.contains(name)));
        assert_eq!(svg.matches("<rect ").count(), 24 + 2 + 1); // the bars, the legend, the paper
        assert_eq!(svg, bars().to_svg()?);
        Ok(())
    }

    /// The areas of all shapes of a colour, in cells: paths are runs of whole cells.
    fn area(svg: &str, cell: i32) -> i32 {
        let of = |run: &str| {
            let numbers: Vec<i32> =
                run.split(|c: char| c.is_ascii_alphabetic() || c == ' ').filter_map(|n| n.parse().ok()).collect();
            numbers[2] * numbers[3] / (cell * cell)
        };
        let paths = svg.split(" d=\"M").skip(1).map(|path| path.split('"').next().unwrap_or_default());
        paths.flat_map(|path| path.split('M')).map(of).sum()
    }

    #[test]
    fn a_heatmap_has_a_cell_for_each_number_and_one_scale_for_all_panels() -> lacuna::Result<()> {
        let (one, two) = (array![[0.0, 1.0, 1.0], [1.0, 4.0, f64::NAN]], array![[2.0f32], [8.0]]);
        let svg = Heatmap::new(HOSTILE).panel("one", &one).panel(HOSTILE, &two).to_svg()?;
        assert_well_formed(&svg);
        assert_eq!(area(&svg, 24 * 4), 7, "six and two cells, of which one is not finite");
        assert!(svg.contains(">8<") && svg.contains(">0<"), "the ends of the scale");
        let both = |range: &str| svg.matches(range).count();
        assert_eq!(both("fill=\"#08306B\""), 2, "the largest in its panel and in the scale");
        // About 0 both ways; a logarithmic scale has no place for 0.
        let diverging = Heatmap::new("w").diverging().panel("w", &array![[-1.0, 0.5]]).to_svg()?;
        assert!(diverging.contains(">1<") && diverging.contains(">-1<"));
        assert_eq!(area(&Heatmap::new("h").log().panel("h", &array![[0.0, 1.0, 10.0]]).to_svg()?, 24 * 4), 2);
        Ok(())
    }

    #[test]
    fn a_mask_is_drawn_by_what_it_keeps_and_large_ones_as_densities() -> lacuna::Result<()> {
        let mask = Mask::from_fn(3, 5, |r, c| (r + c) % 2 == 0);
        let svg = Heatmap::masks("m").mask("m", &mask).to_svg()?;
        let kept = svg.split("<path").find(|path| path.contains("#0072B2")).unwrap();
        assert_eq!((area(kept, 24 * 4), area(&svg, 24 * 4)), (8, 15));
        assert!(svg.contains("kept") && svg.contains("dropped"));
        let large = Heatmap::masks("m").mask("m", &Mask::from_fn(384, 192, |r, _| r % 2 == 0)).to_svg()?;
        assert!(large.contains("m (means of 2\u{a0}×\u{a0}1)"), "{}", &large[..400]);
        assert!(large.len() < 10_000, "every cell is half kept, so that a row is one run: {}", large.len());
        Ok(())
    }

    #[test]
    fn a_heatmap_of_nothing_is_an_error() {
        let error = |figure: Heatmap| figure.to_svg().unwrap_err().to_string();
        assert_eq!(error(Heatmap::new("t")), "figure 't': nothing to draw: 0 panels, 0 cells, none with a place on the scale");
        assert!(error(Heatmap::new("t").panel("a", &array![[f64::NAN]])).contains("1 panels, 1 cells"));
        assert!(error(Heatmap::new("t").log().panel("a", &array![[-1.0]])).contains("none with a place"));
        assert!(error(Heatmap::new("t").range(1.0, 1.0).panel("a", &array![[1.0]])).starts_with("colour_range: 1 to 1"));
    }

    #[test]
    fn a_page_escapes_its_text_and_refers_to_nothing_outside() -> lacuna::Result<()> {
        let mut table = Table::new([HOSTILE]);
        table.row([HOSTILE]);
        let html = Page::new(HOSTILE).heading(HOSTILE).text(HOSTILE).table(&table).figure(&figure().to_svg()?).to_html();
        assert!(!html.contains("<script"));
        for reference in ["href", "src=", "@import", "url("] {
            assert!(!html.contains(reference), "{reference}");
        }
        assert_eq!(html.matches("://").count(), 1, "only the SVG name space, which is no reference");
        assert_eq!((html.matches("<figure>").count(), html.matches("</figure>").count()), (1, 1));
        Ok(())
    }
}

#[test]
fn error_bars_stand_at_every_point_that_has_a_spread_and_leave_the_other_lines_as_they_were() -> lacuna::Result<()> {
    use lacuna::report::{Figure, Point};
    let points = || vec![Point::with_band(0.5, 2.0, 1.0, 3.0), Point::new(0.6, 2.0), Point::with_band(0.7, 3.0, 2.5, 4.0)];
    let figure = || Figure::new("t", "x", "y").series("a", points());
    let (bands, bars) = (figure().to_svg()?, figure().error_bars().to_svg()?);
    let count = |svg: &str, what: &str| svg.matches(what).count();
    // A bar and its two ends at two of the three points, and no band.
    assert_eq!(count(&bars, "<polyline") - count(&bands, "<polyline"), 6);
    assert_eq!((count(&bands, "<polygon"), count(&bars, "<polygon")), (1, 0));
    // An end below 0 has no place on a logarithmic axis.
    let log = Figure::new("t", "x", "y").series("a", vec![Point::with_band(0.5, 2.0, -1.0, 3.0)]).log_y();
    assert_eq!(log.clone().error_bars().to_svg()?.matches("<polyline").count(), log.to_svg()?.matches("<polyline").count() - 1);
    Ok(())
}
