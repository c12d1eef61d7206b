// Texts that every page carries. Private to src/html.
#pragma once

#include <string_view>

namespace qwenbench::html {

/// Chart.js, from the distribution's package; empty where it was not there (no_chart_library.cpp).
extern const std::string_view kChartLibrary;
extern const std::string_view kStyle;
extern const std::string_view kScript;  // draws what <script id="charts"> says

}  // namespace qwenbench::html
