// One self-contained page of charts: no network, readable in print and in dark mode, a table beside each chart.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace qwenbench::html {

struct Table {
  std::string caption;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;  // the first cell of a row is its header
};

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points{};
  std::vector<std::string> labels{};  // of the points, shown on hover; may be empty
  bool emphasized = false;            // joined by a thick line: a front
  double radius = 5;                  // of the points, pixels
};

struct Chart {
  enum class Kind { kLines, kPoints, kIntervals, kHeatMap };
  Kind kind = Kind::kLines;
  std::string id;  // unique on the page: letters, digits, _ and -
  std::string title;
  std::string note;  // one sentence under the title; may be empty
  std::string x_label, y_label;
  bool x_logarithmic = false;
  std::vector<Series> series;                             // lines and points
  std::vector<std::string> categories;                    // rows of intervals and of a heat map
  std::vector<std::pair<double, double>> intervals;       // one a category; drawn as bars from low to high
  std::vector<double> centers;                            // one a category: the estimate within the interval
  std::vector<std::vector<std::optional<double>>> cells;  // heat map: [category][column]
  double cell_low = 0, cell_high = 1;                     // values of the ends of the colour scale
  Table table;                                            // the same numbers
};

struct Section {
  std::string heading;
  std::vector<std::string> paragraphs;
  std::vector<Table> tables;
  std::vector<Chart> charts;
};

struct Page {
  std::string title, subtitle;
  std::vector<Section> sections;
};

/// The page's HTML. Throws InputError where this build has no chart library.
std::string render(const Page& page);

/// False where the distribution's package was not there when this was built.
bool has_chart_library();

/// Text for HTML: &, <, >, quotes.
std::string escaped(const std::string& text);

}  // namespace qwenbench::html
