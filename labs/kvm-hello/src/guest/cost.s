# Loops that leave the guest, one kind each. 64 bits; dx, rbx and the ring are set by the host.

        .org    0x000                   # a port that nobody in the kernel listens to
cost_port:
        out     dx, al
        jmp     cost_port

        .org    0x040                   # an address without memory
cost_mmio:
        mov     [rbx], eax
        jmp     cost_mmio

        .org    0x080                   # nothing to do
cost_halt:
        hlt
        jmp     cost_halt

        .org    0x100                   # 128 port writes that the kernel may absorb, then one that it does not
cost_port_batch:
        .rept   128
        out     dx, al
        .endr
        out     0x10, al
        jmp     cost_port_batch

        .org    0x200                   # the same with stores
cost_mmio_batch:
        .rept   128
        mov     [rbx], eax
        .endr
        out     0x10, al
        jmp     cost_mmio_batch

        .org    0x400                   # interrupts: sleep until one comes
cost_irq:
        mov     al, 0x11                # ICW1: initialise, four words follow
        out     0x20, al
        mov     al, 0x20                # ICW2: line 0 is vector 0x20
        out     0x21, al
        mov     al, 0x04                # ICW3: the second controller is on line 2
        out     0x21, al
        mov     al, 0x01                # ICW4: 8086 mode
        out     0x21, al
        mov     al, 0xef                # mask all lines but 4
        out     0x21, al
        sti
        out     0x10, al                # ready
cost_irq_sleep:
        hlt
        jmp     cost_irq_sleep

        .org    0x480                   # vector 0x24
cost_irq_handler:
        out     0x10, al                # tell the host
        mov     al, 0x20                # end of interrupt
        out     0x20, al
        iretq
guest_cost_data:
