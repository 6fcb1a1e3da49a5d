/* SPDX-License-Identifier: MIT */
#include "emulated_backend.h"

#include "emulation.h"

extern "C" const ewci_cuda_module *ewci_cuda_module_get(void); /* host/backend/backend_cuda.c */

ewc_status ewci_backend_emulated_create(ewc_backend **out)
{
    emulation::reset();
    emulation::current_device = emulation::knobs.callers_device;
    const ewc_status status = ewci_cuda_module_get()->create(out, 0, ewci_fail);
    if (status == EWC_OK) ewci_backend_check(*out);
    return status;
}
