#include "html/page.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "html/assets.h"

namespace qwenbench::html {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json pairs(const std::vector<std::pair<double, double>>& values) {
  Json json = Json::array();
  for (const auto& [x, y] : values) {
    if (std::isfinite(x) && std::isfinite(y)) json.push_back({x, y});
  }
  return json;
}

const char* kind_of(Chart::Kind kind) {
  switch (kind) {
    case Chart::Kind::kLines:
      return "lines";
    case Chart::Kind::kPoints:
      return "points";
    case Chart::Kind::kIntervals:
      return "intervals";
    case Chart::Kind::kHeatMap:
      return "heat";
  }
  return "";
}

Json json_of(const Chart& chart) {
  Json json{
      {"id", chart.id},     {"kind", kind_of(chart.kind)},        {"title", chart.title},          {"x", chart.x_label},
      {"y", chart.y_label}, {"logarithmic", chart.x_logarithmic}, {"categories", chart.categories}};
  json["series"] = Json::array();
  for (const Series& series : chart.series) {
    json["series"].push_back({{"name", series.name},
                              {"points", pairs(series.points)},
                              {"labels", series.labels},
                              {"emphasized", series.emphasized},
                              {"radius", series.radius}});
  }
  json["intervals"] = pairs(chart.intervals);
  json["centers"] = Json::array();
  for (const double center : chart.centers) json["centers"].push_back(number(center));
  json["cells"] = Json::array();
  for (const auto& row : chart.cells) {
    Json values = Json::array();
    for (const auto& value : row) values.push_back(value ? number(*value) : Json(nullptr));
    json["cells"].push_back(std::move(values));
  }
  json["low"] = chart.cell_low;
  json["high"] = chart.cell_high;
  return json;
}

/// JSON within <script>: nothing in it may end the element.
std::string in_script(const Json& json) {
  std::string result;
  for (const char c : json.dump(-1, ' ', false, Json::error_handler_t::replace)) {
    result += c == '<' ? std::string("\\u003c") : std::string(1, c);
  }
  return result;
}

std::string table_html(const Table& table) {
  std::string text = fmt::format(
      "<div class=\"table\" role=\"region\" tabindex=\"0\" aria-label=\"{0}\"><table><caption>{0}</caption><thead><tr>",
      escaped(table.caption));
  for (const std::string& cell : table.head) text += fmt::format("<th scope=\"col\">{}</th>", escaped(cell));
  text += "</tr></thead><tbody>\n";
  for (const auto& row : table.rows) {
    text += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i) {
      const char* mark = row[i] == "regression" ? " class=\"bad\"" : row[i] == "improvement" ? " class=\"good\"" : "";
      text += i == 0 ? fmt::format("<th scope=\"row\">{}</th>", escaped(row[i]))
                     : fmt::format("<td{}>{}</td>", mark, escaped(row[i]));
    }
    text += "</tr>\n";
  }
  return text + "</tbody></table></div>\n";
}

std::string chart_html(const Chart& chart) {
  const std::string note = chart.note.empty() ? "" : fmt::format("<span>{}</span>", escaped(chart.note));
  std::string text = fmt::format(
      "<figure role=\"group\" aria-labelledby=\"{0}-title\"><figcaption id=\"{0}-title\">{1}{2}</figcaption>\n"
      "<div class=\"chart{3}\"><canvas id=\"{0}\" role=\"img\" aria-label=\"Chart: {1}. The table below holds its "
      "numbers.\"></canvas></div>\n",
      chart.id, escaped(chart.title), note, chart.categories.size() > 8 ? " tall" : "");
  if (chart.kind == Chart::Kind::kHeatMap) {
    text += fmt::format("<p class=\"scale\" aria-hidden=\"true\">{:.4g} <i></i> {:.4g}</p>\n", chart.cell_low,
                        chart.cell_high);
  }
  const bool small = chart.table.rows.size() <= 12;
  return text + fmt::format("<details{}><summary>Numbers</summary>\n{}</details></figure>\n", small ? " open" : "",
                            table_html(chart.table));
}

}  // namespace

bool has_chart_library() { return !kChartLibrary.empty(); }

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return result;
}

std::string render(const Page& page) {
  if (!has_chart_library()) {
    throw InputError(
        "this build has no chart library: install the package libjs-chart.js, then configure and build again");
  }
  Json charts = Json::array();
  std::string body;
  for (const Section& section : page.sections) {
    body += fmt::format("<section><h2>{}</h2>\n", escaped(section.heading));
    for (const std::string& paragraph : section.paragraphs) body += fmt::format("<p>{}</p>\n", escaped(paragraph));
    for (const Table& table : section.tables) body += table_html(table);
    for (const Chart& chart : section.charts) {
      body += chart_html(chart);
      charts.push_back(json_of(chart));
    }
    body += "</section>\n";
  }
  std::string text = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n<title>{0}</title>\n<style>{1}</style>\n"
      "</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the results</a>\n<header><h1>{0}</h1>\n"
      "<p class=\"subtitle\">{2}</p></header>\n<main id=\"main\">\n{3}</main>\n",
      escaped(page.title), kStyle, escaped(page.subtitle), body);
  text += fmt::format("<script type=\"application/json\" id=\"charts\">{}</script>\n<script>", in_script(charts));
  text += kChartLibrary;
  text += "</script>\n<script>";
  text += kScript;
  return text + "</script>\n</body>\n</html>\n";
}

}  // namespace qwenbench::html
