// Text for the page: escaping, and numbers as people read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "audit/figure.h"

namespace carat::audit::page {

// Safe as text and inside a quoted attribute. Invalid UTF-8 becomes U+FFFD; control characters and
// those that change the direction of text become visible.
[[nodiscard]] std::string escape(std::string_view text);

// The first or last characters of valid or invalid UTF-8, with an ellipsis if something was cut.
[[nodiscard]] std::string first_characters(std::string_view text, size_t most);
[[nodiscard]] std::string last_characters(std::string_view text, size_t most);
// Cut in the middle.
[[nodiscard]] std::string shortened(std::string_view text, size_t most);
[[nodiscard]] size_t count_characters(std::string_view text);

// Not-a-number is a figure that the document does not have: a dash.
[[nodiscard]] std::string nats_text(double nats);  // three digits that matter
[[nodiscard]] std::string percent_text(double share, int digits = 2);
[[nodiscard]] std::string fixed_text(double value, int digits);
[[nodiscard]] std::string bytes_text(double bytes);   // powers of 1000
[[nodiscard]] std::string count_text(int64_t count);  // "60,000"
[[nodiscard]] std::string power_text(int exponent);   // 10 to the power of it
// "0.0120 to 0.0126", or nothing. The ends have the digits that the value has.
[[nodiscard]] std::string interval_text(const Figure& nats);
[[nodiscard]] std::string interval_percent_text(const Figure& share);
[[nodiscard]] std::string interval_fixed_text(const Figure& figure, int digits);

// "one candidate", "3 candidates".
[[nodiscard]] std::string counted(int64_t n, const std::string& one, const std::string& many);

}  // namespace carat::audit::page
