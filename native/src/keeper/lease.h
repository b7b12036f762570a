// The lease of this node, as dlmd keeps it for the programs of the node (dlmd/wire/lease-page.ts): descriptor 7, mapped.
#pragma once

#include <cstdint>

namespace keeper {

class Lease {
 public:
  // False: what is there is no lease page. No descriptor, or a device (/dev/null), is none that ends.
  bool open();
  // How long it holds, if its page is not changed; 0: it does not. Without a page it holds for ever.
  int64_t leftMs() const;

 private:
  const uint8_t* page_ = nullptr;
};

}  // namespace keeper
