// The root that the hostile server's certificates in the corpus lead to; certificate.cc is written by seeds.py.
#ifndef POLYTLS_FUZZ_CERTIFICATE_H
#define POLYTLS_FUZZ_CERTIFICATE_H

#include <string>

namespace fuzz {

// root_certificate returns it in DER.
std::string root_certificate();

}  // namespace fuzz

#endif
