#include "json.h"

namespace convc {

void Json::space() {
  while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
}

bool Json::accept(char wanted) {
  space();
  if (failed_ || at_ == end_ || *at_ != wanted) return false;
  ++at_;
  return true;
}

bool Json::hex4(uint32_t &value) {
  value = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    if (at_ == end_) return bad();
    const char c = *at_;
    uint32_t digit;
    if (c >= '0' && c <= '9') digit = static_cast<uint32_t>(c - '0');
    else if (c >= 'a' && c <= 'f') digit = static_cast<uint32_t>(c - 'a' + 10);
    else if (c >= 'A' && c <= 'F') digit = static_cast<uint32_t>(c - 'A' + 10);
    else return bad();
    value = value << 4 | digit;
  }
  return true;
}

bool Json::string(Text &text) {
  if (!expect('"')) return false;
  char *out = at_;
  text.data = out;
  while (at_ < end_ && *at_ != '"') {
    if (static_cast<unsigned char>(*at_) < 0x20) return bad();
    if (*at_ != '\\') {
      *out++ = *at_++;
      continue;
    }
    if (++at_ == end_) return bad();
    const char escape = *at_++;
    switch (escape) {
      case '"': case '\\': case '/': *out++ = escape; break;
      case 'b': *out++ = '\b'; break;
      case 'f': *out++ = '\f'; break;
      case 'n': *out++ = '\n'; break;
      case 'r': *out++ = '\r'; break;
      case 't': *out++ = '\t'; break;
      case 'u': {
        uint32_t code;
        if (!hex4(code)) return false;
        if (code >= 0xdc00 && code < 0xe000) return bad();
        if (code >= 0xd800 && code < 0xdc00) {
          uint32_t low;
          if (end_ - at_ < 2 || at_[0] != '\\' || at_[1] != 'u') return bad();
          at_ += 2;
          if (!hex4(low) || low < 0xdc00 || low >= 0xe000) return bad();
          code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        // UTF-8 is never longer than its escape: 1 to 3 bytes for 6, 4 for 12. A zero would end the text early.
        if (code == 0) return bad();
        if (code < 0x80) {
          *out++ = static_cast<char>(code);
        } else if (code < 0x800) {
          *out++ = static_cast<char>(0xc0 | code >> 6);
          *out++ = static_cast<char>(0x80 | (code & 63));
        } else if (code < 0x10000) {
          *out++ = static_cast<char>(0xe0 | code >> 12);
          *out++ = static_cast<char>(0x80 | (code >> 6 & 63));
          *out++ = static_cast<char>(0x80 | (code & 63));
        } else {
          *out++ = static_cast<char>(0xf0 | code >> 18);
          *out++ = static_cast<char>(0x80 | (code >> 12 & 63));
          *out++ = static_cast<char>(0x80 | (code >> 6 & 63));
          *out++ = static_cast<char>(0x80 | (code & 63));
        }
        break;
      }
      default: return bad();
    }
  }
  if (at_ == end_) return bad();
  ++at_;
  text.size = static_cast<size_t>(out - text.data);
  *out = 0;
  return true;
}

bool Json::integer(int64_t &value) {
  space();
  if (failed_) return false;
  const bool negative = at_ < end_ && *at_ == '-';
  if (negative) ++at_;
  if (at_ == end_ || *at_ < '0' || *at_ > '9') return bad();
  int64_t read = 0;
  for (; at_ < end_ && *at_ >= '0' && *at_ <= '9'; ++at_) {
    if (__builtin_mul_overflow(read, 10, &read) || __builtin_sub_overflow(read, *at_ - '0', &read)) return bad();
  }
  if (at_ < end_ && (*at_ == '.' || *at_ == 'e' || *at_ == 'E')) return bad();
  if (!negative && __builtin_sub_overflow(int64_t{0}, read, &read)) return bad();
  value = read;
  return true;
}

// What is skipped is not looked at closely: a number or true, false, null is a run of their letters.
bool Json::number_or_word() {
  const char *start = at_;
  while (at_ < end_ && ((*at_ >= '0' && *at_ <= '9') || (*at_ >= 'a' && *at_ <= 'z') || *at_ == 'E' || *at_ == '+' ||
                        *at_ == '-' || *at_ == '.')) {
    ++at_;
  }
  return at_ > start || bad();
}

bool Json::skip() {
  space();
  if (failed_ || at_ == end_) return bad();
  if (*at_ == '{') return object([this](const Text &) { return skip(); });
  if (*at_ == '[') return array([this] { return skip(); });
  Text ignored;
  return *at_ == '"' ? string(ignored) : number_or_word();
}

bool Json::finished() {
  space();
  return !failed_ && at_ == end_;
}

}  // namespace convc
