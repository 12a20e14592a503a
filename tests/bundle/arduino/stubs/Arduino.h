/* What the sketches call of Arduino's core: for a compiler's check of their syntax, not to run. */
#pragma once
#include <stdint.h>

struct Port {
  void begin(unsigned long);
  explicit operator bool() const;
  void print(const char*);
  void print(int);
  void print(unsigned long);
  void print(double);
  void println(const char*);
  void println(unsigned long);
};
extern Port Serial;
unsigned long micros();
void setup();
void loop();
