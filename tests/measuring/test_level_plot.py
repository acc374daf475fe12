from protquant.measuring.level_plot import LevelRow, Panel, level_figure


def test_a_row_has_a_stroke_for_each_level_and_a_diamond_for_each_outlier():
    rows = [LevelRow("three", 2, [-1, 0, 1], [], 10.0), LevelRow("two and one", 1, [0, 1], [5.0], 3.0)]
    figure = level_figure(
        [Panel("plain", [0.0, 1.0, 5.0], False, rows), Panel("stretched", [-1.0, 2.0, 50.0], True, rows)]
    )
    axis = figure.axes[2]
    assert [len(strokes.get_segments()) for strokes in axis.collections] == [3, 2]
    diamonds = [line.get_xdata().tolist() for line in axis.lines if line.get_marker() == "D"]
    assert diamonds == [[], [5.0]]
    texts = {text.get_text() for text in axis.texts}
    assert {"three", "two and one", "10.0 dB", "3.0 dB"} <= texts
