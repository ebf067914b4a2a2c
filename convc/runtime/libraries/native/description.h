// What convc writes into a call of a library: "kind=forward;pads=1,1;steps=bias,relu;...". All of it is decided when the model is compiled;
// convc/runtime/libraries/NAME/description.py is the other side and says what each field means.
#pragma once
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "host.h"

namespace convc_library {

inline std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

class Description {
 public:
  explicit Description(const std::string& text) {
    for (const std::string& field : split(text, ';')) {
      const size_t equals = field.find('=');
      fields_[field.substr(0, equals)] = equals == std::string::npos ? "" : field.substr(equals + 1);
    }
  }

  const std::string& text(const std::string& name) const {
    auto found = fields_.find(name);
    if (found == fields_.end()) {
      CONVC_THROW(ValueError) << "a library's call must have the field '" << name << "'; got none.";
    }
    return found->second;
  }
  int64_t integer(const std::string& name) const { return std::strtoll(text(name).c_str(), nullptr, 10); }
  double number(const std::string& name) const { return std::strtod(text(name).c_str(), nullptr); }
  std::vector<int64_t> integers(const std::string& name) const {
    std::vector<int64_t> values;
    for (const std::string& part : split(text(name), ',')) values.push_back(std::strtoll(part.c_str(), nullptr, 10));
    return values;
  }

 private:
  std::map<std::string, std::string> fields_;
};

}  // namespace convc_library
